"""What every detector has: a name, hyper-parameters, declared needs, ``fit`` and a frozen fitted form that scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.head import Head
from analyze.detectors.reference import Reference
from analyze.detectors.rows import Float32, Rows, tiles, with_logits_of
from analyze.detectors.validation import Validation
from analyze.detectors.walks import Walk
from analyze.metrics._arrays import numbers
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
    patches
        Of the rows to score: the score of each image's best patch.
    """

    logits: bool = False
    features: bool = False
    head: bool = False
    fitted_on: tuple[str, ...] = ()
    labels: bool = False
    negatives: bool = False
    unit_sums: bool = False
    patches: bool = False


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


@dataclass(frozen=True)
class LearntByWalk(Learnt):
    """What detectors of neighbours hand back: also what their rule asks of a bank, which others may share."""

    walk: Walk = field(kw_only=True)


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

    def score(
        self,
        *,
        features: NDArray[Any] | None = None,
        logits: NDArray[Any] | None = None,
        patch_scores: NDArray[Any] | None = None,
    ) -> NDArray[np.float32]:
        """Score rows; the result of a row depends on nothing but the row.

        Parameters
        ----------
        features : ndarray of shape (n, D), optional
            Penultimate features, as the model gave them.
        logits : ndarray of shape (n, C), optional
            Logits. Where they are needed but not given, they are computed from the features and the head.
        patch_scores : ndarray of shape (n,), optional
            Of each image, the largest softmax probability over patches and classes (``patch_score`` of a store).

        Returns
        -------
        ndarray of shape (n,)
            Float32, higher = more in-distribution; NaN for a row that holds NaN.

        Raises
        ------
        UserError
            Where a needed array is missing or has the wrong width.
        """
        return score_all([self], features=features, logits=logits, patch_scores=patch_scores)[0]

    def score_rows(self, rows: Rows) -> NDArray[np.float32]:
        """Score one tile."""
        if self.needs.logits and not rows.has_logits and self.head is not None and rows.has_features:
            rows = with_logits_of(rows, self.head)
        space = rows.of_unit_length() if self.unit and rows.has_features else rows
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            scores = np.array(self._rule(space), dtype=np.float32)
        # comparisons swallow NaN (a clipped, pruned or searched row would get a number)
        if self.needs.features or (rows.has_features and not rows.has_logits):
            scores[rows.spoilt_features] = np.nan
        if self.needs.logits:
            scores[rows.spoilt_logits] = np.nan
        return scores


@dataclass(frozen=True, eq=False)
class FittedByWalk(Fitted):
    """A fitted detector of neighbours, and what its rule asks of a bank."""

    walk: Walk = field(repr=False, kw_only=True)


def score_all(
    detectors: Sequence[Fitted],
    *,
    features: NDArray[Any] | None = None,
    logits: NDArray[Any] | None = None,
    patch_scores: NDArray[Any] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Score rows by several detectors in one pass; what they share is computed once.

    Parameters
    ----------
    detectors
        Fitted detectors.
    features, logits, patch_scores
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
    patch_scores = None if patch_scores is None else numbers("patch_scores", patch_scores, 1)
    given = next((len(values) for values in (features, logits, patch_scores) if values is not None), 0)
    scores = [np.empty(given, np.float32) for _ in detectors]
    for part, rows in row_tiles(detectors, features, logits, patch_scores):
        for detector, out in zip(detectors, scores, strict=True):
            out[part] = detector.score_rows(rows)
        if advance is not None:
            advance(part.stop - part.start)
    return scores


def row_tiles(
    detectors: Sequence[Fitted],
    features: NDArray[Any] | None,
    logits: NDArray[Any] | None,
    patch_scores: NDArray[Any] | None = None,
) -> Iterator[tuple[slice, Rows]]:
    """Yield the tiles of some rows and where they lie; what several detectors need of a tile is computed once.

    Raises
    ------
    UserError
        Where a detector needs an array that is not given, or arrays are of different lengths.
    """
    _check(detectors, features, logits, patch_scores)
    # without logits each detector that needs them scores a copy of the tile, with those of its own head
    sharing = [detector for detector in detectors if logits is not None or not detector.needs.logits]
    walks = [detector.walk for detector in sharing if isinstance(detector, FittedByWalk)]
    for part, f, z in tiles(features, logits, patch_scores):
        p = None if patch_scores is None else np.array(patch_scores[part], dtype=np.float32)
        rows = Rows(f, z, p)
        rows.walks = walks
        yield part, rows


def _check(
    detectors: Sequence[Fitted],
    features: NDArray[Any] | None,
    logits: NDArray[Any] | None,
    patch_scores: NDArray[Any] | None,
) -> None:
    given = {"features": features, "logits": logits, "patch_scores": patch_scores}
    there = {name: len(values) for name, values in given.items() if values is not None}
    if not there:
        raise UserError("nothing to score: give features, logits or both")
    if len(set(there.values())) > 1:
        first, *others = there
        other = next(name for name in others if there[name] != there[first])
        raise UserError(f"{there[first]} rows of {first} but {there[other]} of {other}")
    for detector in detectors:
        if detector.needs.features and features is None:
            raise UserError(f"{detector.name} scores features: give score(features=...)")
        if detector.needs.logits and logits is None and detector.head is None:
            raise UserError(f"{detector.name} scores logits: give score(logits=...), or fit it with a head")
        if detector.needs.patches and patch_scores is None:
            raise UserError(f"{detector.name} scores the best patch of each image: give score(patch_scores=...)")


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
        affine = the_head if the_head is not None and not the_head.reason else None
        made = (self.name, self.hyper_parameters, self.needs, learnt.fitted_on, learnt.notes, unit, affine)
        if isinstance(learnt, LearntByWalk):
            return FittedByWalk(*made, _rule=learnt.rule, walk=learnt.walk)
        return Fitted(*made, _rule=learnt.rule)

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
