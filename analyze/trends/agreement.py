"""Agreement on the line: accuracy under shift, predicted from how often pairs of models agree."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyze.trends.fits import Line, fit_line
from analyze.trends.scales import transform, untransform
from closerlook_common.console.terminal import counted


@dataclass(frozen=True)
class AgreementOnTheLine:
    """Accuracy under shift predicted without its labels (Baek et al. 2022).

    Attributes
    ----------
    accuracy_line, agreement_line
        Probit lines of shifted against standard accuracy over models, and of agreement over pairs of models.
    predicted
        ``model id shifted predicted``: the standard accuracy mapped by the agreement's line (ALine-S), next to the
        true one where it is known.
    mean_absolute_error
        Of the prediction, where shifted accuracies are known; NaN otherwise.
    paired_by
        What paired the models' rows: ``name`` of the image, or ``row``. Empty where the agreement was given.
    """

    accuracy_line: Line | None
    agreement_line: Line
    predicted: pl.DataFrame
    mean_absolute_error: float
    paired_by: str = ""

    def __repr__(self) -> str:
        """Return both lines and how far the prediction is off."""
        error = self.mean_absolute_error
        shown = f"; off by {error:.4f} on average" if np.isfinite(error) else ""
        return (
            f"shifted accuracy of {counted(len(self.predicted), 'model')} predicted from agreement{shown}\n"
            f"accuracy, {self.accuracy_line}\nagreement, {self.agreement_line}"
        )

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, repr(self).splitlines())) + self.predicted._repr_html_()


def agreement_on_the_line(
    accuracy: pl.DataFrame, agreement: pl.DataFrame, *, method: str = "ols", scale: str = "probit"
) -> AgreementOnTheLine:
    """Fit the agreement's line and predict shifted accuracies with it.

    Parameters
    ----------
    accuracy
        Columns ``model``, ``id`` and, where known, ``shifted``: accuracies in [0, 1].
    agreement
        One row a pair of models, columns ``id`` and ``shifted``: shares of images with the same prediction.
    method, scale
        Of the lines.
    """
    options: dict[str, Any] = {"method": method, "x_scale": scale, "y_scale": scale}
    # Pairs share their models, so an interval over pairs would be too narrow: there is none.
    line = fit_line(agreement["id"], agreement["shifted"], errors=False, **options)
    at = transform(accuracy["id"].to_numpy(), scale)
    predicted = untransform(line.slope * at + line.intercept, scale)
    own, error = None, float("nan")
    if "shifted" in accuracy.columns:
        own = fit_line(accuracy["id"], accuracy["shifted"], **options)
        error = float(np.mean(np.abs(predicted - accuracy["shifted"].to_numpy())))
    known = [name for name in ("model", "id", "shifted") if name in accuracy.columns]
    table = accuracy.select(known).with_columns(pl.Series("predicted", predicted))
    return AgreementOnTheLine(own, line, table, error)
