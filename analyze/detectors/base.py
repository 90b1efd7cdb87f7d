"""What every detector has: a name, hyper-parameters, declared needs, ``fit`` and a frozen fitted form that scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.head import Head
from analyze.detectors.reference import Reference
from analyze.detectors.rows import Float32, LogitRows, Rows, tiles
from analyze.metrics._arrays import numbers
from analyze.metrics._checks import whole_numbers
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.errors import UserError

Rule = Callable[[Rows], NDArray[Any]]


@dataclass(frozen=True)
class Needs:
    """What a detector needs; ``fitted_on`` names where it can be fitted, best first.

    Attributes
    ----------
    logits, features
        Of the rows to score.
    head
        An affine last layer.
    fitted_on
        ``validation`` (in-distribution rows), ``reference`` (sums over a training set), ``bank`` (rows of it); one of
        them is enough. Empty where nothing is fitted.
    labels
        Whether the validation rows need labels.
    negatives
        Text embeddings of negative labels.
    unit_sums
        Of the reference: sums of features at unit length.
    """

    logits: bool = False
    features: bool = False
    head: bool = False
    fitted_on: tuple[str, ...] = ()
    labels: bool = False
    negatives: bool = False
    unit_sums: bool = False


@dataclass(frozen=True, eq=False)
class Validation:
    """In-distribution rows set aside for fitting: features (n, D) and logits (n, C), labels (n,) or None."""

    features: NDArray[Any] | None
    logits: NDArray[Any] | None
    labels: NDArray[Any] | None = None
    source: str = "validation"

    @staticmethod
    def of(given: Any) -> Validation:
        """Return validation rows from ``(features, logits[, labels])``, a prediction store, or an object with those."""
        if isinstance(given, Validation):
            return given
        if isinstance(given, np.ndarray):
            raise UserError("validation is (features, logits), (features, logits, labels) or a store; got one array")
        if isinstance(given, (tuple, list)):
            if len(given) not in (2, 3):
                raise UserError(
                    f"validation is (features, logits) or (features, logits, labels); got {len(given)} arrays"
                )
            features, logits, labels = (*given, None)[:3]
        else:
            features, logits, labels = (_array(given, name) for name in ("features", "logits", "labels"))
        arrays = [
            None if values is None else numbers(f"validation {name}", values, 2)
            for name, values in (("features", features), ("logits", logits))
        ]
        classes = None if labels is None else whole_numbers("validation labels", labels)
        lengths = {len(values) for values in (*arrays, classes) if values is not None}
        if len(lengths) != 1:
            shapes = ", ".join("none" if v is None else str(v.shape) for v in (*arrays, classes))
            raise UserError(f"validation rows need features, logits and labels of equal length; got {shapes}")
        kept = _finite(*arrays)
        if not len(kept):
            raise UserError("validation holds no row without NaN or infinity: there is nothing to fit on")
        if len(kept) == next(iter(lengths)):  # the arrays themselves, not copies of them
            return Validation(arrays[0], arrays[1], classes)
        rows = [None if values is None else values[kept] for values in (*arrays, classes)]
        return Validation(rows[0], rows[1], rows[2])


def _array(given: Any, name: str) -> Any:
    value = getattr(given, name, None)
    return value() if callable(value) else value


def _finite(*arrays: NDArray[Any] | None) -> NDArray[np.intp]:
    """Return the rows that are finite in all arrays."""
    good = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in arrays if values is not None])
    return np.flatnonzero(good)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What ``fit`` was given, in the feature space that the detector works in."""

    reference: Reference | None
    head: Head | None
    validation: Validation | None
    negatives: NDArray[np.float32] | None
    unit: bool

    def the_head(self) -> Head:
        """Return the head (its presence was checked before)."""
        assert self.head is not None
        return self.head

    def the_reference(self) -> Reference:
        """Return the reference (its presence was checked before)."""
        assert self.reference is not None
        return self.reference


@dataclass(frozen=True)
class Learnt:
    """What a family hands back: the rule, where it was fitted, and conventions that had to be used."""

    rule: Rule
    fitted_on: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted detector.

    Attributes
    ----------
    name, hyper_parameters
        As in the registry; complete.
    needs
        What scoring needs.
    fitted_on
        ``validation``, ``reference``, ``bank``, or empty where nothing was fitted.
    notes
        Conventions that these data asked for ("3 classes without a correct row ...").
    """

    name: str
    hyper_parameters: Mapping[str, Any]
    needs: Needs
    fitted_on: str
    notes: tuple[str, ...]
    unit: bool = False
    head: Head | None = field(default=None, repr=False)
    _rule: Rule = field(repr=False, kw_only=True)

    def score(self, *, features: NDArray[Any] | None = None, logits: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Score rows; the result of a row depends on nothing but the row.

        Parameters
        ----------
        features : ndarray of shape (n, D), optional
            Penultimate features, as the model gave them.
        logits : ndarray of shape (n, C), optional
            Logits. Where they are needed but not given, they are computed from the features and the head.

        Returns
        -------
        ndarray of shape (n,)
            Float32, higher = more in-distribution; NaN for a row that holds NaN.

        Raises
        ------
        UserError
            Where a needed array is missing or has the wrong width.
        """
        return score_all([self], features=features, logits=logits)[0]

    def score_rows(self, rows: Rows) -> NDArray[np.float32]:
        """Score one tile."""
        if self.needs.logits and not rows.has_logits and self.head is not None and rows.has_features:
            head = self.head
            space = rows.of_unit_length() if head.normalize else rows
            rows.with_logits(rows.once(head, lambda: LogitRows(space.product(head.columns) + head.bias)))
        space = rows.of_unit_length() if self.unit and rows.has_features else rows
        scores = np.array(self._rule(space), dtype=np.float32)
        # comparisons swallow NaN (a clipped, pruned or searched row would get a number)
        if self.needs.features or not rows.has_logits:
            scores[rows.spoilt_features] = np.nan
        if self.needs.logits:
            scores[rows.spoilt_logits] = np.nan
        return scores


def score_all(
    detectors: Sequence[Fitted],
    *,
    features: NDArray[Any] | None = None,
    logits: NDArray[Any] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Score rows by several detectors in one pass; what they share is computed once.

    Parameters
    ----------
    detectors
        Fitted detectors.
    features, logits
        As for ``Fitted.score``.
    advance
        Called with the number of rows that were finished.

    Returns
    -------
    list
        One array (n,) float32 a detector, equal bit for bit to ``detector.score``.
    """
    features = None if features is None else numbers("features", features, 2)
    logits = None if logits is None else numbers("logits", logits, 2)
    n = _check(detectors, features, logits)
    scores = [np.empty(n, np.float32) for _ in detectors]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for part, count, f, z in tiles(features, logits):
            rows = Rows(f, z)
            for detector, out in zip(detectors, scores, strict=True):
                out[part] = detector.score_rows(rows if z is not None or len(detectors) == 1 else Rows(f, z))[:count]
            if advance is not None:
                advance(count)
    return scores


def _check(detectors: Sequence[Fitted], features: NDArray[Any] | None, logits: NDArray[Any] | None) -> int:
    if features is None and logits is None:
        raise UserError("nothing to score: give features, logits or both")
    if features is not None and logits is not None and len(features) != len(logits):
        raise UserError(f"{len(features)} rows of features but {len(logits)} of logits")
    for detector in detectors:
        if detector.needs.features and features is None:
            raise UserError(f"{detector.name} scores features: give score(features=...)")
        if detector.needs.logits and logits is None and detector.head is None:
            raise UserError(f"{detector.name} scores logits: give score(logits=...), or fit it with a head")
    given = features if features is not None else logits
    assert given is not None
    return len(given)


@dataclass(frozen=True)
class Detector(ABC):
    """An unfitted detector; its fields are its hyper-parameters."""

    name: ClassVar[str]
    needs: ClassVar[Needs]
    uses_level: ClassVar[bool] = False
    """Whether the score depends on the level of the logits, which log-probabilities have lost."""
    zero_shot_only: ClassVar[bool] = False
    """Whether the logits must be cosines times the scale of a zero-shot head."""
    paper: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters of the paper or its authors' code, where they differ from OpenOOD's (the defaults)."""
    sweep: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values that a search on a validation OOD set tries."""
    limits: ClassVar[tuple[float, float]] = (-INFINITY, INFINITY)
    """Range of the scores."""
    evidence: ClassVar[Evidence | None] = None
    """Formula, source and oracle; None for a plug-in that states none."""

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Return name -> value."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def missing(self, *, reference: bool, bank: bool, head: bool, validation: bool, negatives: bool) -> str:
        """Return what the detector lacks, as one clause; empty where it can be fitted."""
        if self.needs.head and not head:
            return "needs a head (weight and bias of the last layer)"
        if self.needs.negatives and not negatives:
            return "needs text embeddings of negative labels"
        present = {"reference": reference, "bank": bank, "validation": validation}
        if self.needs.fitted_on and not any(present[place] for place in self.needs.fitted_on):
            wanted = {
                "reference": "a reference store of the training set",
                "bank": "a reference store of the training set with its bank",
                "validation": "in-distribution validation rows",
            }
            places = [
                wanted[p] for p in self.needs.fitted_on if not (p == "bank" and "reference" in self.needs.fitted_on)
            ]
            return f"needs {' or '.join(places)}"
        return ""

    def fit(self, *, reference: Any = None, head: Any = None, validation: Any = None, negatives: Any = None) -> Fitted:
        """Fit; what a detector does not need is ignored.

        Parameters
        ----------
        reference
            A ``Reference``, a reference store, or ``(features, logits, labels)`` of the training set.
        head
            ``(weight, bias)``, a head store, or an object with those.
        validation
            In-distribution rows: ``(features, logits[, labels])``, a prediction store, or an object with those.
        negatives
            Text embeddings of negative labels (k, D), or a head store whose weight they are.

        Raises
        ------
        UserError
            Where something that the detector needs is missing, the head is not affine, or shapes disagree.
        """
        the_head = None if head is None else Head.of(head)
        the_reference = None if reference is None else Reference.of(reference)
        rows = None if validation is None else Validation.of(validation)
        lacking = self.missing(
            reference=the_reference is not None,
            bank=the_reference is not None and len(the_reference.bank_labels) > 0,
            head=the_head is not None,
            validation=rows is not None,
            negatives=negatives is not None,
        )
        if lacking:
            raise UserError(f"{self.name} {lacking}")
        if self.needs.head and the_head is not None and the_head.reason:
            raise UserError(f"{self.name} needs an affine head: {the_head.reason}")
        if the_head is not None and the_reference is not None and the_head.width != the_reference.width:
            raise UserError(
                f"the head takes features of width {the_head.width}, the reference holds width {the_reference.width}"
            )
        uses_reference = "reference" in self.needs.fitted_on or "bank" in self.needs.fitted_on
        unit = self.needs.head and the_head is not None and the_head.normalize
        if uses_reference and the_reference is not None:
            if unit:
                the_reference = the_reference.of_unit_length()
            unit = unit or the_reference.unit_features
        learnt = self._fit(Inputs(the_reference, the_head, rows, _embeddings(negatives), unit))
        return Fitted(
            self.name,
            self.hyper_parameters,
            self.needs,
            learnt.fitted_on,
            learnt.notes,
            unit,
            the_head if the_head is not None and not the_head.reason else None,
            _rule=learnt.rule,
        )

    @abstractmethod
    def _fit(self, inputs: Inputs) -> Learnt:
        """Learn what is needed and return the rule."""


def _embeddings(negatives: Any) -> NDArray[np.float32] | None:
    if negatives is None:
        return None
    return numbers("negatives", getattr(negatives, "weight", negatives), 2).astype(np.float32)


def check_range(name: str, what: str, value: float, low: float, high: float, *, open_ends: bool = True) -> None:
    """Raise a ``UserError`` unless a hyper-parameter lies between two bounds."""
    inside = low < value < high if open_ends else low <= value <= high
    if not inside:
        raise UserError(f"{name}: {what}={value} must lie between {low} and {high}")


__all__ = [
    "Detector",
    "Fitted",
    "Float32",
    "Inputs",
    "Learnt",
    "Needs",
    "Rows",
    "Validation",
    "check_range",
    "score_all",
]
