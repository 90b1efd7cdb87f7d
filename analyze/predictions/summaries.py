"""Per-image statistics as named columns: what nearly every metric is computed from, in memory or as a
summary store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.label_sets import NO_LIKELIHOOD
from cache_schema.errors import UserError, nearest
from cache_schema.records import DatasetCard, ModelCard

SUMMARY_VERSION = 2
"""Moves whenever the same logits would give other columns."""

METADATA = "metadata."


class ColumnSpec(NamedTuple):
    """A column: its type and its meaning."""

    dtype: str
    what: str


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
    "image_key": ColumnSpec("int64", "hash of the file name, to join annotations"),
    "scaled_confidence": ColumnSpec("float32", "confidence at the fitted temperature"),
    "scaled_label_log_probability": ColumnSpec("float32", "label log-probability at the fitted temperature"),
    "scaled_label_rank": ColumnSpec("int16", "label_rank at the fitted temperature, where it can differ"),
    "scaled_sum_squares": ColumnSpec("float32", "sum of squares at the fitted temperature"),
    "scaled_entropy": ColumnSpec("float32", "entropy at the fitted temperature"),
    "vector_confidence": ColumnSpec("float32", "confidence after vector scaling"),
    "vector_label_log_probability": ColumnSpec("float32", "label log-probability after vector scaling"),
    "vector_label_rank": ColumnSpec("int16", "label_rank after vector scaling, which can change predictions"),
    "vector_sum_squares": ColumnSpec("float32", "sum of squares after vector scaling"),
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
    """

    model: ModelCard
    dataset: DatasetCard
    columns: Mapping[str, NDArray[Any]]
    n_classes: int
    digest: str = ""
    variant: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["valid"])

    def has(self, name: str) -> bool:
        """Return whether the summary holds a column."""
        return name in self.columns

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column.

        Raises
        ------
        MissingColumn
            Names the column and where it would come from.
        """
        try:
            return self.columns[name]
        except KeyError:
            raise MissingColumn(_why_missing(self, name)) from None

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
    if name.startswith("scaled_"):
        reason = summary.facts.get("no_temperature", "")
        return f"no temperature: {reason}" if reason else "needs a temperature fitted on the in-distribution set"
    if name.endswith("label_log_probability") and summary.facts.get("several_labels"):
        return NO_LIKELIHOOD
    if name == "klm":
        told = summary.facts.get("no_klm")
        return str(told or "needs the big stores: this summary holds no KL-matching ([ood] scores)")
    if name.startswith("vector_"):
        return "needs the big stores: this summary holds no vector scaling ([calibrators] methods)"
    if name == "image_key":
        return "the images' names were not kept: use the big store, or summarize again"
    if name in ("label_mass", "label_count", "set_sizes"):
        return "needs the big store: the summary holds no conformal sets"
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
        out. Of imported tables (image_id, label, predicted, confidence) ``top`` and ``label_rank`` are
        made from the
        prediction, as far as it tells.
    """
    names = store.columns()
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        if name in COLUMNS or name.startswith(METADATA):
            columns[name] = store.column(name)
    if "label" not in columns:
        raise UserError(f"{store.title} has no column 'label': it is no summary that metrics can use")
    if "valid" not in columns:
        columns["valid"] = np.ones(len(store), np.bool_)
    if "top" not in columns and "predicted" in names:
        columns["top"] = np.asarray(store.column("predicted"))[:, None]
    if "label_rank" not in columns and "top" in columns:
        # Only right or wrong is known: rank 0, or beyond every k (top-5 is then refused by its own check).
        wrong = np.where(columns["label"] < 0, -1, np.iinfo(np.int16).max)
        columns["label_rank"] = np.where(columns["top"][:, 0] == columns["label"], 0, wrong).astype(np.int16)
    record = store.record
    facts = dict(record.get("facts", {}))
    return Summary(
        model=store.model,
        dataset=store.dataset,
        columns=columns,
        n_classes=int(facts.get("n_classes", store.dataset.n_classes or 0)),
        digest=str(record.get("source_digest", "")) or store.digest,
        variant=store.variant,
        facts=facts,
    )


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
        "facts": {**summary.facts, "n_classes": summary.n_classes},
    }
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
