"""Scores of image-text models that look at the patches of an image too: L-MCM and GL-MCM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.clip_scores import MaximumConceptMatching
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.errors import UserError

STORED_TEMPERATURE = 1.0
"""That best patches are chosen and scored with: of the details of every store that has them."""


def _check_tau(name: str, tau: float) -> None:
    if tau != STORED_TEMPERATURE:
        raise UserError(
            f"{name}: tau={tau:g} cannot be answered: stores have the best patch at tau={STORED_TEMPERATURE:g},"
            " and at another temperature another patch may be the best"
        )


@dataclass(frozen=True)
class LocalConceptMatching(Detector):
    """L-MCM (Miyai et al. 2025): the largest softmax probability of the cosines over patches and class names.

    A patch is the value token of the last attention layer, unmixed, carried on to the space of the texts, as the
    authors' code does it. Stores have each image's best patch with ``extract --arrays patches``.

    Attributes
    ----------
    tau
        Temperature of the cosines: 1, the authors' default, is what stores can answer.
    """

    tau: float = STORED_TEMPERATURE
    name = "l-mcm"
    evidence = Evidence(
        "max_patch max_c softmax(cosines of the patch / tau)_c", "Miyai et al., IJCV 2025",
        "the definition, patch by patch", "test_patch_detectors.py::test_scores_are_those_of_all_patches",
    )  # fmt: skip
    limits = (0.0, 1.0)
    zero_shot_only = True
    needs = Needs(patches=True)

    def __post_init__(self) -> None:
        _check_tau(self.name, self.tau)

    def _fit(self, inputs: Inputs) -> Learnt:
        del inputs
        return Learnt(lambda rows: rows.patch_scores)


@dataclass(frozen=True)
class GlobalLocalConceptMatching(Detector):
    """GL-MCM (Miyai et al. 2025): MCM of the image plus ``weight`` times L-MCM of its best patch.

    Attributes
    ----------
    tau
        Temperature of both; as for ``l-mcm``.
    weight
        Of the local score: 1, the authors' default.
    scale
        As for ``mcm``.
    """

    tau: float = STORED_TEMPERATURE
    weight: float = 1.0
    scale: float | None = None
    name = "gl-mcm"
    evidence = Evidence(
        "max_c softmax(cosines / tau)_c + weight max_patch max_c softmax(cosines of the patch / tau)_c",
        "Miyai et al., IJCV 2025", "the definition, patch by patch",
        "test_patch_detectors.py::test_scores_are_those_of_all_patches",
    )  # fmt: skip
    limits = (0.0, INFINITY)
    uses_level = True
    zero_shot_only = True
    needs = Needs(logits=True, patches=True)

    def __post_init__(self) -> None:
        _check_tau(self.name, self.tau)
        check_range(self.name, "weight", self.weight, 0, float("inf"))
        if self.scale is not None:
            check_range(self.name, "scale", self.scale, 0, float("inf"))

    def _fit(self, inputs: Inputs) -> Learnt:
        whole = MaximumConceptMatching(tau=self.tau, scale=self.scale)._fit(inputs)
        weight = np.float32(self.weight)
        return Learnt(lambda rows: whole.rule(rows) + weight * rows.patch_scores, whole.fitted_on, whole.notes)


DETECTORS = (LocalConceptMatching, GlobalLocalConceptMatching)
