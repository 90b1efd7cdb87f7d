"""What each option may be: words that are known, numbers that make sense; one line for what is neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analyze.annotations import FACTORS
from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import plugin_names

WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("accuracy", "interval"): ("wilson", "clopper-pearson"),
    ("classes", "map_rule"): ("", "max", "mean", "restrict"),
    ("calibration", "smece_kernel"): ("reflected", "logit"),
    ("calibrators", "methods"): (
        "temperature", "vector", "matrix", "dirichlet", "histogram", "isotonic", "beta", "platt", "venn-abers",
        "top-label",
    ),
    ("ood", "scores"): (
        "msp", "mls", "energy", "entropy", "variance", "gen", "margin", "klm", "tempscale", "mcm",
    ),
    ("ood", "further"): ("partial_auroc10", "eer"),
    ("ood", "threshold"): ("first", "nearest"),
    ("ood", "aupr"): ("average_precision", "trapezoid"),
    ("conformal", "methods"): ("lac", "aps", "raps", "saps"),
    ("conformal", "quantiles"): ("all", "class", "clustered"),
    ("factors", "labels"): ("top", "multi"),
}  # fmt: skip
"""Section and option -> the words it may be, or be a list of."""


def _share(value: float) -> bool:
    return 0.0 < value < 1.0


def _positive(value: float) -> bool:
    return 0.0 < value < float("inf")


def _count(value: float) -> bool:
    return value >= 0


def _shares(values: list[float]) -> bool:
    return all(isinstance(v, (int, float)) and 0.0 < v <= 1.0 for v in values)


def _bins(values: list[int]) -> bool:
    return all(isinstance(v, int) and v >= 1 for v in values)


def _bounds(values: list[float]) -> bool:
    return len(values) == 2 and all(isinstance(v, (int, float)) for v in values) and 0 < values[0] < values[1]


NUMBERS: Mapping[tuple[str, str], tuple[Callable[[Any], bool], str]] = {
    ("split", "fraction"): (_share, "between 0 and 1"),
    ("split", "seed"): (_count, "0 or more"),
    ("accuracy", "confidence_level"): (_share, "between 0 and 1"),
    ("accuracy", "worst_class_least"): (lambda v: v >= 1, "1 or more"),
    ("calibration", "bins"): (lambda v: v >= 1, "1 or more"),
    ("calibration", "mass_bins"): (_bins, "whole numbers of 1 or more"),
    ("calibration", "classwise_bins"): (_count, "0 (none) or more"),
    ("calibrators", "bounds"): (_bounds, "two positive numbers, the lower first"),
    ("calibrators", "histogram_bins"): (lambda v: v >= 1, "1 or more"),
    ("calibrators", "matrix_off_diagonal"): (_positive, "positive"),
    ("calibrators", "matrix_bias"): (_positive, "positive"),
    ("ood", "mcm_tau"): (_positive, "positive"),
    ("ood", "energy_temperature"): (_positive, "positive"),
    ("ood", "gen_m"): (lambda v: v >= 1, "1 or more"),
    ("ood", "gen_gamma"): (_positive, "positive"),
    ("selective", "risks"): (_shares, "shares above 0, up to 1"),
    ("selective", "coverages"): (_shares, "shares above 0, up to 1"),
    ("selective", "accuracies"): (_shares, "shares above 0, up to 1"),
    ("selective", "skip"): (_count, "0 or more"),
    ("conformal", "alpha"): (_share, "between 0 and 1"),
    ("conformal", "raps_penalty"): (_count, "0 or more"),
    ("conformal", "raps_k"): (_count, "0 or more"),
    ("conformal", "saps_weight"): (_count, "0 or more"),
    ("factors", "most_values"): (lambda v: v >= 1, "1 or more"),
    ("factors", "quantiles"): (_count, "0 (none) or more"),
    ("bootstrap", "replicates"): (_count, "0 (none) or more"),
    ("bootstrap", "seed"): (_count, "0 or more"),
    ("bootstrap", "confidence_level"): (_share, "between 0 and 1"),
}
"""Section and option -> whether a value makes sense, and how that is worded."""


def check_option(section: str, name: str, value: Any, where: str) -> None:
    """Refuse a value that no metric could use.

    Parameters
    ----------
    section, name
        Of the option.
    value
        Of the option's own type.
    where
        Where it was set, for the message.

    Raises
    ------
    UserError
        Names the option, what it was given, and what it may be.
    """
    key = (section, name)
    words = FACTORS if key == ("factors", "factors") else WORDS.get(key)
    if words is not None and key == ("calibrators", "methods"):
        words = (*words, *plugin_names("calibrators"))
    for word in value if isinstance(value, list) else [value]:
        if words is not None and word not in words:
            raise UserError(f"{where}: [{section}] {name}: no {word!r}{nearest(str(word), words, list_all=True)}")
    if key in NUMBERS:
        allowed, text = NUMBERS[key]
        if not allowed(value):
            raise UserError(f"{where}: [{section}] {name} = {value!r} must be {text}")
