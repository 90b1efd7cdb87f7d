"""Agreement on the line from a cache: how often pairs of models predict alike, and what that says of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze import metrics
from analyze.evaluate import choose
from analyze.evaluate.pairing import BY_NAME, BY_ROW, paired_summaries
from analyze.reading.sources import LABELLED, Source, sources_of
from analyze.settings import Settings, study_defaults
from analyze.trends.agreement import AgreementOnTheLine, agreement_on_the_line
from closerlook_common.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

LEAST_MODELS = 3


@dataclass(frozen=True)
class _Predictions:
    """What all models predict on one set: (models, n), and whether it is right; rows are of readable images."""

    models: list[str]
    predicted: NDArray[np.int64]
    right: NDArray[np.bool_]
    paired_by: str


def agreement_lines(
    cache: Cache,
    *,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    method: str = "ols",
    scale: str = "probit",
    settings: Settings | None = None,
    pair_by_row: bool = False,
    progress: Callable[[str, int, int], None] = lambda _dataset, _done, _all: None,
) -> tuple[dict[str, AgreementOnTheLine], dict[str, str]]:
    """Set accuracy and agreement under each shift against those on the in-distribution set (Baek et al. 2022).

    Where both lie on one line, the accuracy under shift can be had without its labels: the agreement's line maps
    the accuracy without shift to it. The shifted set's own labels are used for
    ``mean_absolute_error`` and the accuracy's line alone.

    Parameters
    ----------
    cache
        An open cache; summary stores do. Memory is two predictions a model and image at a time.
    models, datasets
        Ids or patterns; everything when None. The in-distribution set is the one with most models.
    method, scale
        Of the lines: the authors' ordinary least squares on probit axes.
    settings
        The conventions; the study's when None.
    pair_by_row
        Pair row i with row i where a store holds no image names, instead of refusing the dataset.
    progress
        Called with (dataset, sets done, sets in all).

    Returns
    -------
    tuple of (dict, dict)
        Shifted set -> its lines and predictions, and shifted set (or ``set of models``) -> why there are none.

    Raises
    ------
    UserError
        Where no in-distribution set has three models.
    """
    settings = settings or study_defaults()
    sources = [s for s in sources_of(cache) if s.role in LABELLED]
    chosen = set(choose({s.model for s in sources}, models, "model"))
    wanted = set(choose({s.dataset for s in sources}, datasets, "dataset"))
    by_set: dict[str, list[Source]] = {}
    for source in sources:
        if source.model in chosen and (source.role == "id" or source.dataset in wanted):
            by_set.setdefault(source.dataset, []).append(source)
    grounds = sorted((name for name, own in by_set.items() if own[0].role == "id"), key=lambda d: (-len(by_set[d]), d))
    if not grounds or len(by_set[grounds[0]]) < LEAST_MODELS:
        raise UserError("agreement on the line needs the predictions of three models on an in-distribution set")
    problems: dict[str, str] = {}
    ground = _read(by_set[grounds[0]], settings, problems, pair_by_row=pair_by_row)
    shifts = [name for name, own in sorted(by_set.items()) if own[0].role == "shift"]
    if not shifts:
        name = next((name for name in grounds[1:]), "NAME")
        decides = f"'python -m cache_schema dataset CACHE {name} --role shift --shift-of {grounds[0]}'"
        problems["shifted sets"] = f"there is none in the cache; where a set is one: {decides}"
    found: dict[str, AgreementOnTheLine] = {}
    for done, name in enumerate(shifts):
        try:
            shifted = _read(by_set[name], settings, problems, pair_by_row=pair_by_row)
            line = _line(ground, shifted, method=method, scale=scale)
            by_row = BY_ROW in (ground.paired_by, shifted.paired_by)
            found[name] = replace(line, paired_by=BY_ROW if by_row else BY_NAME)
        except CloserlookError as error:
            problems[name] = str(error)
        progress(name, done + 1, len(shifts))
    return found, problems


def lines_table(found: dict[str, AgreementOnTheLine]) -> pl.DataFrame:
    """Return one row a shifted set: slope, intercept and R^2 of both lines, and how far predictions are off.

    Columns ``dataset models accuracy_slope accuracy_intercept accuracy_r2 agreement_slope agreement_intercept
    agreement_r2 pairs mean_absolute_error paired_by``; slopes and intercepts are on the scale of the fit.
    """
    rows: list[dict[str, Any]] = []
    for dataset, lines in found.items():
        row: dict[str, Any] = {"dataset": dataset, "models": len(lines.predicted)}
        for name, line in (("accuracy", lines.accuracy_line), ("agreement", lines.agreement_line)):
            if line is not None:
                row |= {f"{name}_slope": line.slope, f"{name}_intercept": line.intercept, f"{name}_r2": line.r2}
        rows.append(
            row
            | {
                "pairs": lines.agreement_line.n,
                "mean_absolute_error": lines.mean_absolute_error,
                "paired_by": lines.paired_by,
            }
        )
    return pl.DataFrame(rows)


def _read(sources: list[Source], settings: Settings, problems: dict[str, str], *, pair_by_row: bool) -> _Predictions:
    """Read what every model predicts; images that one of them could not be shown are left out for all.

    Models whose rows cannot be paired with those of most others are left out, and named in ``problems``.
    """
    dataset = sources[0].dataset
    paired = paired_summaries(sources, settings, pair_by_row=pair_by_row, leave_out=True)
    for reason in dict.fromkeys(paired.left_out.values()):
        models = ", ".join(model for model, why in paired.left_out.items() if why == reason)
        problems[f"{dataset} of {models}"] = reason
    summaries = paired.summaries
    use = np.logical_and.reduce([s.labelled for s in summaries])
    if not use.any():
        raise UserError(f"no labelled image of {dataset} could be read by all")
    return _Predictions(
        [s.model for s in paired.sources],
        np.stack([s.prediction[use] for s in summaries]),
        np.stack([s["label_rank"][use] == 0 for s in summaries]),
        paired.by,
    )


def _line(ground: _Predictions, shifted: _Predictions, *, method: str, scale: str) -> AgreementOnTheLine:
    both = [name for name in ground.models if name in shifted.models]
    if len(both) < LEAST_MODELS:
        raise UserError(f"three models are needed on it and on the in-distribution set; there are {len(both)}")
    accuracies, agreements = [], []
    for side in (ground, shifted):
        rows = [side.models.index(name) for name in both]
        accuracies.append(side.right[rows].mean(axis=1))
        agreements.append(metrics.agreement_matrix(side.predicted[rows]))
    pairs = list(combinations(range(len(both)), 2))
    return agreement_on_the_line(
        pl.DataFrame({"model": both, "id": accuracies[0], "shifted": accuracies[1]}),
        pl.DataFrame({"id": [agreements[0][p] for p in pairs], "shifted": [agreements[1][p] for p in pairs]}),
        method=method,
        scale=scale,
    )
