"""What is asked of a probe, and how its variants are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analyze.probes.inputs import TOKENS
from analyze.probes.neighbours import NEIGHBOURS, TEMPERATURE
from closerlook_common.errors import UserError, nearest

METHODS = {
    "linear": "multinomial logistic regression, its L2 penalty chosen on held-out rows of the reference",
    "knn": "votes of the nearest neighbours in the reference, as DINO evaluates",
}
"""Name -> what it is."""

FEATURES = ("plain", "unit", *TOKENS)

VERSION = 1
"""Raised whenever the same features would give another probe; part of every store's identity."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """How probes are fitted.

    Attributes
    ----------
    reference
        Dataset that they are fitted on.
    methods
        Of ``METHODS``.
    shots
        Images a class; empty for all of the reference alone.
    seeds
        Draws of each number of shots.
    seed
        Of the held-out rows, and of the first draw.
    held_out
        Share of each class that the penalty is chosen on.
    l2_path
        Strengths to try; None for CLIP's search, one for that one.
    features
        What a probe is fitted on: features as they are (``plain``), for a linear probe scaled to unit length
        (``unit``), or tokens before the projection: ``class``, or ``class+mean``, class token and mean of the patches
        side by side, or ``block1`` to ``block4``, the class token after one of four blocks.
    k, temperature
        Of the neighbours.
    """

    reference: str
    methods: tuple[str, ...] = ("linear", "knn")
    shots: tuple[int, ...] = ()
    seeds: int = 3
    seed: int = 0
    held_out: float = 0.1
    l2_path: tuple[float, ...] | None = None
    features: str = "plain"
    k: int = NEIGHBOURS
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise UserError(f"no probe {method!r}{nearest(method, METHODS)}; there are {', '.join(METHODS)}")
        if self.features not in FEATURES:
            near = nearest(self.features, FEATURES)
            raise UserError(f"features {self.features!r} are none of {', '.join(FEATURES)}{near}")
        if not self.methods:
            raise UserError(f"no method is named; there are {', '.join(METHODS)}")
        if not 0 < self.held_out < 1:
            raise UserError(f"a held-out share of {self.held_out:g} must lie between 0 and 1")
        if self.l2_path is not None and not (self.l2_path and all(0 < l2 < float("inf") for l2 in self.l2_path)):
            raise UserError("the strengths of an L2 path must be numbers above 0")
        if any(shots < 1 for shots in self.shots) or self.seeds < 1 or self.seed < 0:
            raise UserError("shots and seeds must be at least 1, the first seed at least 0")
        if self.k < 1 or not 0 < self.temperature < float("inf"):
            raise UserError(f"k {self.k} must be at least 1, and the temperature {self.temperature:g} above 0")

    def variants(self) -> Iterator[Variant]:
        """Yield every probe that is asked for."""
        for method in dict.fromkeys(self.methods):
            if not self.shots:
                yield Variant(self, method)
            for shots in dict.fromkeys(self.shots):
                for draw in range(self.seeds):
                    yield Variant(self, method, shots, self.seed + draw)


@dataclass(frozen=True)
class Variant:
    """One probe: a method on the whole reference, or on a draw of some images a class.

    Attributes
    ----------
    options
        Of the call.
    method
        ``linear`` or ``knn``.
    shots
        Images a class; None for the whole reference.
    seed
        Of the draw.
    """

    options: ProbeOptions
    method: str
    shots: int | None = None
    seed: int = 0

    @property
    def is_linear(self) -> bool:
        """Whether it has weights."""
        return self.method == "linear"

    @property
    def unit(self) -> bool:
        """Whether it is fitted on features of unit length."""
        return not self.is_linear or self.options.features == "unit"

    @property
    def whole(self) -> bool:
        """Whether it is a linear probe on the whole reference: such a model has features, a head and a reference."""
        return self.is_linear and self.shots is None

    def name(self, model: str) -> str:
        """Return the id of the probed model: ``dinov2[linear]``, ``dinov2[knn:k=10]``, ``dinov2[knn:5-shot:seed=1]``.

        Features, one given strength, k and temperature are part of it where they are not the defaults.
        """
        options, parts = self.options, [self.method]
        parts += [options.features] if options.features in TOKENS else []
        if self.is_linear:
            parts += ["unit"] if options.features == "unit" else []
            if options.l2_path is not None and len(set(options.l2_path)) == 1:
                parts.append(f"l2={options.l2_path[0]:g}")
        else:
            parts += [f"k={options.k}"] if options.k != NEIGHBOURS else []
            parts += [f"T={options.temperature:g}"] if options.temperature != TEMPERATURE else []
        if self.shots is not None:
            parts += [f"{self.shots}-shot", f"seed={self.seed}"]
        return f"{model}[{':'.join(parts)}]"

    def facts(self) -> dict[str, Any]:
        """Return everything that decides the probe besides features and reference: part of the stores' identity."""
        options = self.options
        found: dict[str, Any] = {"method": self.method, "version": VERSION, "reference": options.reference}
        if self.is_linear:
            path = None if options.l2_path is None else sorted(set(options.l2_path))
            found |= {"features": options.features, "l2_path": path or "CLIP's search from 1e-6 to 1e6"}
            if path is None or len(path) > 1:
                found |= {"held_out": options.held_out, "held_out_seed": options.seed}
        else:
            found |= {"k": options.k, "temperature": options.temperature}
            found |= {"features": options.features} if options.features in TOKENS else {}
        if self.shots is not None:
            # Draws leave the held-out rows alone, so these decide them too.
            found |= {"shots": self.shots, "seed": self.seed}
            found |= {"held_out": options.held_out, "held_out_seed": options.seed}
        return found
