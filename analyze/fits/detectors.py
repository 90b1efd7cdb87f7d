"""Every detector as a fit: the options that it reads, why it cannot be fitted, and the scores of rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analyze import metrics
from analyze.detectors import DETECTORS, Detector, Head, Validation, get
from analyze.detectors import Fitted as Scorer
from analyze.detectors.clip_scores import far_words
from analyze.detectors.rows import Rows as Tile
from analyze.fits.base import Columns, Fit, Fitted, Reason, Rows
from analyze.fits.detector_inputs import ModelInputs, without_patches
from analyze.reading.class_spaces import stores_apart
from analyze.settings import Settings
from closerlook_common.errors import UserError
from closerlook_common.plugins import digest_of

DETECTOR_VERSION = 5
"""Moves whenever a detector would give another score for the same stores."""

CODE = "plugin"
"""Option of a row whose detector is a plug-in: the digest of its code."""


@dataclass(frozen=True, eq=False)
class FittedDetector(Fitted):
    """A detector that can score.

    Attributes
    ----------
    name
        Of the detector.
    scorer
        Its fitted form.
    source
        Where it was fitted, as a row says it (``reference:imagenet-train``); empty where nothing was fitted.
    """

    name: str
    scorer: Scorer
    source: str = ""

    def columns(self, block: Tile) -> Columns:
        """Return the scores of a tile of rows, which keeps what detectors share: (m,) float32, by the name."""
        return {self.name: self.scorer.score_rows(block)}


class DetectorFit(Fit):
    """A detector of the registry, or of a plug-in.

    Parameters
    ----------
    name
        In the registry.

    Notes
    -----
    The sections are those of ``OodOptions.settings``. A detector reads ``detectors`` if its sets of defaults differ,
    ``reference``, ``validation`` and ``negatives`` if it ``needs`` them, and ``sweep`` with ``validation`` if it has
    hyper-parameters to choose. What it does not declare it is not given.
    """

    needs = "detector"
    version = DETECTOR_VERSION
    calibrates = False

    def __init__(self, name: str) -> None:
        get(name)
        kind = self.kind = DETECTORS[name]
        self.name, self.gives = name, (name,)
        read = {
            "detectors": bool(kind.paper),
            "reference": bool({"reference", "bank"} & set(kind.needs.fitted_on)),
            "validation": "validation" in kind.needs.fitted_on or bool(kind.sweep),
            "negatives": kind.needs.negatives,
            "sweep": bool(kind.sweep),
        }
        self.sections = tuple(section for section, reads in read.items() if reads)

    def is_asked(self, settings: Settings) -> bool:
        """Return True: detectors are asked for by making their fits."""
        return True

    def detector(self, settings: Settings) -> Detector:
        """Return the detector as it is to be fitted, before a sweep."""
        return get(self.name, defaults=settings["detectors"]["defaults"]) if self.kind.paper else get(self.name)

    def fit(self, source: ModelInputs, rows: Rows, settings: Settings, threads: int = 1) -> FittedDetector | Reason:
        """Fit to the stores of a model.

        Parameters
        ----------
        source
            The stores.
        rows
            (n,) rows of the validation store that are fitted on.
        settings
            The sections that the fit declares.
        threads
            Not used: a detector takes those of the process.
        """
        if reason := self.why_not(source, settings):
            return Reason(reason)
        given: dict[str, Any] = {"head": source.head}
        if "reference" in self.sections:
            given["reference"] = source.loaded_reference if source.reference is not None else None
        if "validation" in self.kind.needs.fitted_on:
            given["validation"] = _validation(source, rows, settings)
        if "negatives" in self.sections:
            given["negatives"] = _mined(source, settings["negatives"]["share"])
        if self.kind.sweep and settings["sweep"]["dataset"]:
            scorer = self._swept(source, rows, settings, given)
        else:
            scorer = self.detector(settings).fit(**given)
        place = scorer.fitted_on
        on = f"{place}:{_set_of(settings, place)}" if place else ""
        return FittedDetector(self.name, scorer, on)

    def _swept(self, source: ModelInputs, rows: Rows, settings: Settings, given: Mapping[str, Any]) -> Scorer:
        """Choose the hyper-parameters of best AUROC between validation rows and the sweep's OOD set."""
        inside = _validation(source, rows, settings)
        if inside is None or source.sweep is None:
            raise UserError(
                "`sweep` needs in-distribution rows to compare with: give `validation`, a name or NAME:SHARE"
            )
        if reason := stores_apart(source.store, source.sweep):
            raise UserError(reason)
        plain, grid = self.detector(settings).hyper_parameters, self.kind.sweep
        best: tuple[float, Scorer] | None = None
        for values in itertools.product(*grid.values()):
            try:
                scorer = get(self.name, **{**plain, **dict(zip(grid, values, strict=True))}).fit(**given)
                sides = [
                    scorer.score(features=side.features, logits=side.logits) for side in (inside, source.sweep_rows)
                ]
                value = metrics.auroc(*sides)
            except UserError as error:
                reason = str(error)
                continue
            if best is None or value > best[0]:
                best = value, scorer
        if best is None:
            raise UserError(f"{self.name}: no value of the sweep can be used: {reason}")
        return best[1]

    def options(self, settings: Settings, dataset: str, fitted: Fitted | Reason | None = None) -> dict[str, Any]:
        """Return the options that name the variant: hyper-parameters, how they were chosen, and where it was fitted."""
        found = fitted if isinstance(fitted, FittedDetector) else None
        values = self.detector(settings).hyper_parameters if found is None else found.scorer.hyper_parameters
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if code := digest_of("detectors", self.name):
            given[CODE] = code
        if found is not None and found.source:
            given["fit"] = found.source
        if "negatives" in self.sections and settings["negatives"]["share"] < 1:
            given["mined"] = settings["negatives"]["share"]
        if "sweep" in self.sections and settings["sweep"]["dataset"]:
            given["sweep"] = settings["sweep"]["dataset"]
        return given

    def why_not(self, source: ModelInputs, settings: Settings) -> str:
        """Return why the detector cannot run on a model, as a row says it; empty where it can."""
        reason = self.lacks(source, settings)
        if not reason:
            return ""
        return f"{self.name}: {reason}" if reason.startswith("the ") else f"{self.name} {reason}"

    def lacks(self, source: ModelInputs, settings: Settings) -> str:
        """Return what the detector lacks of a model, as a clause; empty where it can run."""
        store, needs, reasons = source.store, self.kind.needs, source.reasons
        if needs.logits and not store.has_logits:
            return "the store holds no logits"
        if needs.features and not store.has_features:
            return "the store holds no features"
        if self.kind.uses_level and store.logits_kind != "logits":
            return "needs logits; the store holds log-probabilities"
        if self.kind.zero_shot_only and (source.head is None or source.head.logit_scale is None):
            if store.model.logit_scale is None:
                return "is for zero-shot models: this one's logits are not cosines"
            if source.head is None:
                return f"needs the head, whose scale the logits carry: {reasons.get('head', 'there is none')}"
        if needs.patches and (reason := without_patches(store, source.head)):
            return reason
        clause = self.detector(settings).missing(
            reference=source.reference is not None,
            bank=source.reference is not None and len(source.reference.bank_labels) > 0,
            head=source.head is not None,
            validation=source.validation is not None,
            negatives=source.negatives is not None,
        )
        if clause:
            given = next((reasons[k] for k in ("head", "negatives", "reference") if k in clause and k in reasons), "")
            return f"{clause}{f': {given}' if given else ''}"
        try:
            self._check_lengths(source)
        except UserError as error:
            return str(error)
        return ""

    def _check_lengths(self, source: ModelInputs) -> None:
        """Raise UserError where the head is not affine, or sums of features at unit length are needed and not there."""
        needs, reference = self.kind.needs, source.reference if "reference" in self.sections else None
        # The reference is loaded only where its header does not decide.
        if needs.unit_sums and reference is not None and not reference.has("unit_feature_sum"):
            source.loaded_reference.with_unit_sums()
        if needs.head and source.head is not None:
            if reason := Head.of(source.head).reason:
                raise UserError(f"needs an affine head: {reason}")
            if source.head.normalize_features and reference is not None:
                source.loaded_reference.of_unit_length()


def _set_of(settings: Settings, place: str) -> str:
    """Return the set that a detector was fitted on, and of validation rows the share."""
    if place != "validation":
        return str(settings["reference"]["dataset"])
    name, share = settings["validation"]["dataset"], settings["validation"]["share"]
    return str(name) if share == 1 else f"{name}:{share:g}"


def _validation(source: ModelInputs, rows: Rows, settings: Settings) -> Validation | None:
    """Return the validation rows that are fitted on; None where none were asked for, or there is no store of them."""
    return source.validation_rows(rows) if settings["validation"]["dataset"] else None


def _mined(source: ModelInputs, share: float) -> Any:
    """Return the negatives, or the share of them that is furthest from the classes."""
    if share == 1 or source.negatives is None:
        return source.negatives
    if source.head is None:
        raise UserError("negatives are chosen by how far they are from the classes of the head, and there is none")
    words = source.negatives.weight
    return words[far_words(words, source.head.weight, share)]
