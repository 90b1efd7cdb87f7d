"""Options of public functions: a value that is none of theirs is refused in a line that names the option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from public_arguments import CASES, CONFIDENCES, LABELS, OTHER, RIGHT

from analyze import calibrators, detectors, intervals, metrics
from closerlook_common.errors import UserError

RNG = np.random.default_rng(0)
WITH_OPTIONS: dict[str, Callable[..., Any]] = {
    # functions that are called through another form where their arrays are tested
    "fit_rows": partial(calibrators.fit_rows, LABELS),
    "factor_results": partial(metrics.factor_results, RIGHT, {"f": OTHER}),
    "mean_corruption_error": partial(metrics.mean_corruption_error, dict.fromkeys(metrics.ALEXNET_ERRORS, [0.5] * 5)),
    "bootstrap": partial(intervals.bootstrap, np.mean, CONFIDENCES, rng=RNG),
    "bootstrap_interval": partial(intervals.bootstrap_interval, 0.5, CONFIDENCES),
    "paired_difference": partial(intervals.paired_difference, CONFIDENCES, CONFIDENCES[::-1], rng=RNG),
    "BootstrapWeights": partial(intervals.BootstrapWeights, 7),
}

BAD: Mapping[str, tuple[Any, ...]] = {
    "number": ("no", None, np.nan, np.inf, -np.inf, -1, [0.5], 1j, np.array([0.1, 0.2]), True),
    "count": ("no", None, np.nan, np.inf, -1, [2], 1j, np.array([1, 2]), 2.5, True, 10**30),
    "word": ("nope", 3, [], b"id", None, np.array(["a", "b"])),
    "switch": ("no", 2, None, [], np.nan, np.array([True, False])),
    "optional": ("no", 1.5, np.nan, [1, 2], {}, np.array([1, 2])),
    "pair": ("no", None, np.nan, 3, [], ["a", "b"], [2, 1]),
    "baseline": (3, "no", None, {"fog": "no"}, {"fog": np.nan}, {"fog": -1}, {"fog": [1]}),
}


def kind_of(key: str, default: Any) -> str:
    if key in ("successes", "n"):  # fractional where rows are not independent
        return "number"
    kinds = {bool: "switch", int: "count", float: "number", str: "word", tuple: "pair", dict: "baseline"}
    return kinds.get(type(default), "optional")


def options() -> dict[tuple[str, str], tuple[Callable[..., Any], str]]:
    """Every option of every public function that is called with good arrays, and of which kind it is."""
    found: dict[tuple[str, str], tuple[Callable[..., Any], str]] = {}
    calls = dict(WITH_OPTIONS)
    for name, (function, arrays) in CASES.items():
        if name not in WITH_OPTIONS and " with " not in name:
            calls[name] = partial(function, **{key: value for key, (_, value) in arrays.items()})
    for name, call in calls.items():
        for key, parameter in inspect.signature(call).parameters.items():
            fixed = CASES[name][1] if name in CASES else {}
            is_array = key in fixed or key.endswith("weights") or key in ("usable", "features", "logits", "advance")
            if parameter.default is not inspect.Parameter.empty and not is_array and key not in ("rng", "labels"):
                found[name, key] = (call, kind_of(key, parameter.default))
    return found


OPTIONS = options()


@pytest.mark.parametrize(("name", "key"), OPTIONS)
def test_bad_options_are_refused_by_name(name: str, key: str) -> None:
    call, kind = OPTIONS[name, key]
    call()
    wrong = []
    for bad in BAD[kind]:
        try:
            found = call(**{key: bad})
        except UserError as error:
            if key not in str(error) or "\n" in str(error):
                wrong.append(f"{bad!r}: {error}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{bad!r}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{bad!r}: taken, gave {str(found)[:60]}")
    assert not wrong, f"{name}({key}): " + "; ".join(wrong)


NUMBERS = [(name, key) for (name, key), (_, kind) in OPTIONS.items() if kind in ("number", "count")]


@pytest.mark.parametrize(("name", "key"), [place for place in NUMBERS if "ootstrap" not in place[0]])
def test_numbers_of_numpy_are_numbers(name: str, key: str) -> None:
    call, _ = OPTIONS[name, key]
    default = inspect.signature(call).parameters[key].default
    for other in (np.asarray(default), np.asarray(default)[()]):
        assert str(call(**{key: other})) == str(call(**{key: default}))


DETECTOR_OPTIONS = [(name, key) for name in detectors.names() for key in detectors.get(name).hyper_parameters]


@pytest.mark.parametrize(("name", "key"), DETECTOR_OPTIONS)
def test_bad_options_of_detectors_are_refused_by_name(name: str, key: str) -> None:
    default = detectors.get(name).hyper_parameters[key]
    kind = kind_of(key, default)
    values = BAD["number" if kind == "optional" else kind]
    if kind in ("optional", "word"):
        values = tuple(value for value in values if value is not None)
    wrong = []
    for bad in values:
        try:
            detectors.get(name, **{key: bad})
        except UserError as error:
            if key not in str(error) or "\n" in str(error):
                wrong.append(f"{bad!r}: {error}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{bad!r}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{bad!r}: taken")
    assert not wrong, f"{name}({key}): " + "; ".join(wrong)


@pytest.mark.parametrize("bad", [3, None, [], {}, b"knn"])
def test_a_detectors_name_is_a_word(bad: Any) -> None:
    with pytest.raises(UserError, match="no detector"):
        detectors.get(bad)
    with pytest.raises(UserError, match="defaults"):
        detectors.get("knn", defaults=bad)
