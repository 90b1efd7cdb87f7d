"""Per-image statistics as named columns: what nearly every metric is computed from, in memory or as a
summary store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.annotations import image_key, image_keys
from analyze.annotations.label_sets import NO_LIKELIHOOD
from analyze.fits.registry import FITS, fit_of
from analyze.predictions.dependencies import DeclaredFacts, check_declared, sections_of_column
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import ROW_NUMBERS, row_numbers
from closerlook_common.errors import UserError, nearest

SUMMARY_VERSION = 4
"""Moves whenever the same logits would give other columns."""

METADATA = "metadata."


class ColumnSpec(NamedTuple):
    """A column: its type and its meaning."""

    dtype: str
    what: str


def _moved(prefix: str, fit: str) -> dict[str, ColumnSpec]:
    """Return the columns of a calibrator that moves the logits."""
    return {
        f"{prefix}_confidence": ColumnSpec("float32", f"confidence after {fit}"),
        f"{prefix}_label_log_probability": ColumnSpec("float32", f"label log-probability after {fit}"),
        f"{prefix}_label_rank": ColumnSpec("int16", f"label_rank after {fit}, which can change predictions"),
        f"{prefix}_sum_squares": ColumnSpec("float32", f"sum of squares after {fit}"),
    }


def _by_class(prefix: str, what: str) -> dict[str, ColumnSpec]:
    """Return the columns of conformal sets with more than one quantile."""
    kinds = "LAC, APS, RAPS and SAPS"
    return {
        f"{prefix}_inside": ColumnSpec("int8", f"(n, 4) whether {kinds} with a quantile a {what} hold the label"),
        f"{prefix}_sizes": ColumnSpec("int16", "(n, 4) classes in these sets; -1 where none was fitted"),
    }


COLUMNS: Mapping[str, ColumnSpec] = {
    "label": ColumnSpec("int32", "index in the label space, -1 where there is none"),
    "valid": ColumnSpec("bool", "false where there is no output for the image"),
    "top": ColumnSpec("int16", "(n, 5) classes with the largest logits, the prediction first; -1 pads"),
    "label_rank": ColumnSpec("int16", "place of the label among the sorted logits, 0 is right; -1 without a label"),
    "confidence": ColumnSpec("float32", "probability of the prediction"),
    "label_log_probability": ColumnSpec("float32", "log-probability of the label; NaN without one"),
    "entropy": ColumnSpec("float32", "of the probabilities, in nats"),
    "sum_squares": ColumnSpec("float32", "of the probabilities: Brier score, variance score"),
    "margin": ColumnSpec("float32", "probability of the first class less that of the second"),
    "max_logit": ColumnSpec("float32", "largest logit"),
    "log_sum_exp": ColumnSpec("float32", "log of the sum of exp(logits): minus the energy at T = 1"),
    "energy": ColumnSpec("float32", "T log sum exp(logits / T) at the recorded T, where that is not 1"),
    "gen": ColumnSpec("float32", "sum of (p (1 - p))^gamma over the M largest p"),
    "klm": ColumnSpec("float32", "minus the divergence from the nearest class's mean softmax, where one was fitted"),
    "mcm": ColumnSpec("float32", "largest probability of softmax(cosine / tau); zero-shot models only"),
    "label_mass": ColumnSpec("float32", "probability of the classes at least as probable as the label"),
    "label_count": ColumnSpec("int16", "how many classes are at least as probable as the label"),
    "set_sizes": ColumnSpec("int16", "(n, 3) classes in the LAC, APS and RAPS set; -1 where none was fitted"),
    "saps_score": ColumnSpec("float64", "SAPS score of the label; NaN without one"),
    "saps_size": ColumnSpec("int16", "classes in the SAPS set; -1 where none was fitted"),
    **_by_class("class_sets", "class"),
    **_by_class("clustered_sets", "cluster of classes"),
    "image_key": ColumnSpec("int64", "hash of the file name, to join annotations"),
    "scaled_confidence": ColumnSpec("float32", "confidence at the fitted temperature"),
    "scaled_label_log_probability": ColumnSpec("float32", "label log-probability at the fitted temperature"),
    "scaled_label_rank": ColumnSpec("int16", "label_rank at the fitted temperature, where it can differ"),
    "scaled_sum_squares": ColumnSpec("float32", "sum of squares at the fitted temperature"),
    "scaled_entropy": ColumnSpec("float32", "entropy at the fitted temperature"),
    **_moved("vector", "vector scaling"),
    **_moved("matrix", "matrix scaling"),
    **_moved("dirichlet", "Dirichlet calibration"),
}
"""Name -> column, in the order of a summary store; about 90 bytes an image."""


class MissingColumn(UserError):
    """A metric asks for a statistic that a summary does not hold."""


@dataclass(frozen=True)
class Summary:
    """Per-image statistics of one model on one dataset under one class view.

    Attributes
    ----------
    model, dataset
        The cards.
    columns
        Name -> (n,) array (``top`` is (n, 5)); names of ``COLUMNS`` and ``metadata.*``.
    n_classes
        Classes that compete.
    digest
        Of the prediction store.
    variant
        Name of the class view; empty for the dataset's own.
    facts
        JSON-ready: ``temperature`` and ``split`` of the ``scaled_`` columns, ``vector`` of the ``vector_`` columns,
        ``tau`` of ``mcm``, ``gen``, ``energy_temperature``, ``conformal`` quantiles, ``logits_kind``, ``head``,
        ``class_space``, ``view`` and ``aggregates`` (numbers of the whole set that need all probabilities).
    reasons
        Name of a fit -> why there are no columns of it; see ``reason``.
    declared
        Sections of the settings that statistics may depend on (see ``for_sections``); None for all.
    """

    model: ModelCard
    dataset: DatasetCard
    columns: Mapping[str, NDArray[Any]]
    n_classes: int
    digest: str = ""
    variant: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    declared: frozenset[str] | None = None

    def for_sections(self, declared: frozenset[str]) -> Summary:
        """Return the summary without the statistics that depend on other sections of the settings than these."""
        return replace(self, declared=declared, facts=DeclaredFacts(self.facts, declared))

    def __len__(self) -> int:
        return len(self.columns["valid"])

    def has(self, name: str) -> bool:
        """Return whether the summary holds a column."""
        check_declared(f"column {name}", sections_of_column(name), self.declared)
        return name in self.columns

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column.

        Raises
        ------
        MissingColumn
            Names the column and where it would come from.
        """
        check_declared(f"column {name}", sections_of_column(name), self.declared)
        try:
            return self.columns[name]
        except KeyError:
            raise MissingColumn(_why_missing(self, name)) from None

    def reason(self, fit: str) -> str:
        """Return why there are no columns of a fit; empty where there are some."""
        check_declared(f"the fit {fit}", FITS[fit].sections, self.declared)
        known = FITS[fit]
        if known.fact:
            held = self.facts.get(known.fact) is not None
        else:
            held = any(name in self.columns for name in known.gives)
        return "" if held else self.reasons.get(fit) or known.absent

    @property
    def prediction(self) -> NDArray[Any]:
        """Predicted classes, (n,)."""
        return self["top"][:, 0]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows that enter metrics with labels, (n,)."""
        mask: NDArray[np.bool_] = self["valid"] & (self["label"] >= 0)
        return mask

    @property
    def metadata(self) -> dict[str, NDArray[Any]]:
        """Metadata columns by name."""
        return {k.removeprefix(METADATA): v for k, v in self.columns.items() if k.startswith(METADATA)}

    def rows(self, mask: NDArray[Any]) -> Summary:
        """Return the summary of some rows: a mask, or row numbers in any order."""
        return replace(self, columns=_Rows(self.columns, mask))


class _Rows(Mapping[str, NDArray[Any]]):
    """Some rows of columns; a column is cut when it is first asked for."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], mask: NDArray[Any]) -> None:
        self._columns = columns
        self._rows = np.flatnonzero(mask) if mask.dtype == np.bool_ else mask
        self._all = mask.dtype == np.bool_ and self._rows.size == mask.size
        self._cut: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self._all:
            return self._columns[name]
        if name not in self._cut:
            self._cut[name] = self._columns[name][self._rows]
        return self._cut[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _why_missing(summary: Summary, name: str) -> str:
    if name == "mcm":
        return "needs the model's logit scale (zero-shot models only)"
    fit = fit_of(name)
    if fit is not None and fit.name == "temperature":
        reason = summary.reasons.get(fit.name, "")
        return f"no temperature: {reason}" if reason else "needs a temperature fitted on the in-distribution set"
    if name.endswith("label_log_probability") and summary.facts.get("several_labels"):
        return NO_LIKELIHOOD
    if fit is not None:
        return summary.reason(fit.name) or fit.absent
    if name == "image_key":
        return (
            "this store has no image names, which annotations are joined by. Import it again with image ids; of a"
            " summary, use the prediction store or run 'analyze summarize' again"
        )
    if name.startswith(METADATA):
        known = sorted(summary.metadata)
        column = name.removeprefix(METADATA)
        return f"dataset {summary.dataset.id} has no metadata column {column!r}{nearest(column, known)}"
    return f"needs the statistic {name!r}, which this summary lacks: compute it from the big store"


def read_summary(store: Any) -> Summary:
    """Load a summary store.

    Parameters
    ----------
    store
        A ``cache_schema.SummaryStore``; columns that ``COLUMNS`` does not name (and that are no metadata)
        are left
        out. Of imported tables (image_id, label, predicted, confidence) ``top`` and ``label_rank`` are made from the
        prediction, as far as it is known, and ``image_key`` from the ids.
    """
    names = store.columns()
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        if name in COLUMNS or name.startswith(METADATA):
            columns[name] = store.column(name)
    if "label" not in columns:
        raise UserError(f"{store.title} has no column 'label': it is not a summary that metrics can use")
    if "valid" not in columns:
        columns["valid"] = np.ones(len(store), np.bool_)
    if "top" not in columns and "predicted" in names:
        columns["top"] = np.asarray(store.column("predicted"))[:, None]
    if "label_rank" not in columns and "top" in columns:
        # Only right or wrong is known: rank 0, or beyond every k (top-5 is then refused by its own check).
        wrong = np.where(columns["label"] < 0, -1, np.iinfo(np.int16).max)
        columns["label_rank"] = np.where(columns["top"][:, 0] == columns["label"], 0, wrong).astype(np.int16)
    record = store.record
    if "image_key" in columns and not _keys_of_names(columns["image_key"], record):
        del columns["image_key"]
    if "image_key" not in columns and "image_id" in names and record.get("image_ids") != ROW_NUMBERS:
        columns["image_key"] = image_keys(list(store.column("image_id")))
    facts = dict(record.get("facts", {}))
    reasons = dict(facts.pop("reasons", {}))
    if given := facts.get("split", {}).get("no_temperature"):  # as summaries of version 0.1.0 hold it
        reasons["temperature"] = given
    return Summary(
        model=store.model,
        dataset=store.dataset,
        columns=columns,
        n_classes=int(facts.get("n_classes", _competing(store.dataset))),
        digest=str(record.get("source_digest", "")) or store.digest,
        variant=store.variant,
        facts=facts,
        reasons=reasons,
    )


def _competing(card: DatasetCard) -> int:
    """Return how many classes a table of answers chooses from; 0 where its card does not say."""
    if card.class_map is not None:
        return len(card.class_map)
    return len(card.class_mask) if card.class_mask is not None else card.n_classes or 0


def _keys_of_names(keys: NDArray[Any], record: Mapping[str, Any]) -> bool:
    """Return whether keys are of image names; summaries of unnamed images once held keys of their row numbers."""
    if len(keys) == 0 or keys[0] != image_key("0") or record.get("image_ids") == "given":
        return True
    return not np.array_equal(keys, image_keys(row_numbers(len(keys))))


def write(cache_path: Any, summary: Summary, *, backend: str = "zarr", key: str = "", overwrite: bool = False) -> Any:
    """Write a summary as a summary store of a cache; the smallest fitting integers are used.

    Parameters
    ----------
    cache_path, backend, overwrite
        As for ``cache_schema.write_summary``.
    summary
        What to write.
    key
        Of everything it was made from, so that an unchanged one is not made again.

    Returns
    -------
    cache_schema.SummaryStore
    """
    from cache_schema import write_summary

    columns = {
        name: summary.columns[name].astype(_small(name, summary.columns[name]), copy=False)
        for name in COLUMNS
        if summary.has(name)
    }
    columns |= {name: values for name, values in summary.columns.items() if name.startswith(METADATA)}
    record = {
        "source_digest": summary.digest,
        "summary_version": SUMMARY_VERSION,
        "key": key,
        "facts": {**summary.facts, "n_classes": summary.n_classes, "reasons": dict(summary.reasons)},
    }
    if summary.has("image_key"):
        record["image_ids"] = "given"
    return write_summary(
        cache_path,
        model=summary.model,
        dataset=summary.dataset,
        columns=columns,
        variant=summary.variant,
        backend=backend,
        record=record,
        overwrite=overwrite,
    )


def _small(name: str, values: NDArray[Any]) -> str:
    dtype = COLUMNS[name].dtype
    if dtype == "int16" and values.size and values.max() > np.iinfo(np.int16).max:
        return "int32"
    return dtype
