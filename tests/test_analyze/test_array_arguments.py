"""Public functions of metrics, calibrators, detectors and intervals take arrays of any origin and refuse bad ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from public_arguments import CASES, EACH, NO_ARRAYS, SPECIAL, public

from closerlook_common.errors import UserError


def with_first(value: Any, bad: Any, dtype: Any = None) -> Any:
    changed = np.array(value, dtype)
    changed.flat[0] = bad
    return changed


def bad_values(kind: str, good: Any) -> dict[str, Any]:
    """What no argument of a kind may be."""
    array = np.asarray(good)
    bad: dict[str, Any] = {
        "objects": np.array([{}] * array.size, object).reshape(array.shape),
        "missing": np.where(np.arange(array.size).reshape(array.shape) == 0, None, array.astype(object)),
        "complex": array.astype(complex),
        "masked": np.ma.MaskedArray(array, np.arange(array.size).reshape(array.shape) == 0),
        "ragged": [[1, 2], [3]],
    }
    if kind not in ("any", "columns"):
        bad |= {"a number": 3, "one axis more": array[..., None], "three axes": array[None, None] if array.ndim == 1
                else array[None]}  # fmt: skip
    if kind not in ("names", "columns"):
        bad |= {"text": np.full(array.shape, "no"), "digits": array.astype(str)}
    if kind not in ("any", "rows"):
        bad["no rows"] = array[:0]
    if kind == "truth":
        bad |= {f"{entry}": with_first(array, entry, float) for entry in (2, 7, -1, 0.5, np.nan)}
    if kind in ("classes", "numbers"):
        bad |= {"fractions": with_first(array, 0.7, float), "NaN": with_first(array, np.nan, float), "bool": array > 0}
    if kind == "classes":
        bad |= {"2**32 + 1": with_first(array, 2**32 + 1, np.int64), "beyond": with_first(array, 99)}
        bad["2**63"] = with_first(array, 2**63 + 1, np.uint64)
    if kind == "unit":
        bad |= {f"{entry}": with_first(array, entry) for entry in (1.01, -0.01, np.nan, np.inf, -np.inf)}
    if kind == "weights":
        bad |= {f"{entry}": with_first(array, entry) for entry in (-0.5, np.nan, np.inf)}
        bad["zeros"] = np.zeros(array.shape)
    if kind in ("scores", "logits"):
        bad |= {f"{entry}": with_first(array, entry) for entry in (np.nan, np.inf)}
    return bad


def forms(kind: str, good: Any) -> dict[str, Any]:
    """The same values as other people hold them."""
    array = np.asarray(good)
    found: dict[str, Any] = {"list": array.tolist(), "objects": array.astype(object)}
    found["polars"] = pl.Series(array) if array.ndim == 1 else pl.DataFrame(array)
    if kind in ("truth",):
        found |= {"floats": array.astype(float), "bytes": array.astype(np.int8)}
    elif kind in ("classes", "numbers", "names"):
        found |= {"int8": array.astype(np.int8), "uint64": array.astype(np.uint64), "big endian": array.astype(">i4")}
    else:
        found |= {"big endian": array.astype(">f8"), "long double": array.astype(np.longdouble)}
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        found["pandas"] = pd.Series(array) if array.ndim == 1 else pd.DataFrame(array)
        if array.ndim == 1:
            found["pandas nullable"] = pd.Series(array).convert_dtypes()
    try:
        import torch
    except ImportError:
        pass
    else:
        found["torch"] = torch.tensor(array)
        if array.dtype.kind == "f":
            found["torch with gradient"] = torch.tensor(array, requires_grad=True)
    return found


def same(a: Any, b: Any) -> bool:
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        return np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)
    if isinstance(a, float):
        return bool(a == b or np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True))
    return bool(np.all(a == b))


def test_every_public_function_is_tested_here() -> None:
    known = {name.partition(" with ")[0] for name in CASES} | NO_ARRAYS
    assert set(public()) <= known
    assert set(SPECIAL) | NO_ARRAYS <= set(public()) | {"Validation.of", "Head.of"}


@pytest.mark.parametrize(("name", "key"), EACH)
def test_bad_arrays_are_refused(name: str, key: str) -> None:
    function, arrays = CASES[name]
    kind, good = arrays[key]
    others = {other: value for other, (_, value) in arrays.items() if other != key}
    function(**{key: good}, **others)
    wrong = []
    for what, bad in bad_values(kind, good).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = function(**{key: bad}, **others)
        except UserError as error:
            if "\n" in str(error):
                wrong.append(f"{what}: more than one line: {error}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{what}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{what}: taken, gave {str(found)[:60]}")
    assert not wrong, f"{name}({key}): " + "; ".join(wrong)


@pytest.mark.parametrize(("name", "key"), EACH)
def test_arrays_of_any_origin_give_the_same(name: str, key: str) -> None:
    function, arrays = CASES[name]
    kind, good = arrays[key]
    others = {other: value for other, (_, value) in arrays.items() if other != key}
    expected = function(**{key: good}, **others)
    wrong = []
    for what, other in forms(kind, good).items():
        try:
            found = function(**{key: other}, **others)
        except UserError as error:
            wrong.append(f"{what}: refused: {error}")
        else:
            if not same(expected, found):
                wrong.append(f"{what}: {str(found)[:80]}, not {str(expected)[:80]}")
    assert not wrong, f"{name}({key}): " + "; ".join(wrong)


def outcome(function: Any, given: Mapping[str, Any]) -> Any:
    try:
        return function(**given)
    except UserError as error:
        return f"refused: {error}"


@pytest.mark.parametrize(("name", "key"), EACH)
def test_bfloat16_tensors_are_the_numbers_that_they_hold(name: str, key: str) -> None:
    torch = pytest.importorskip("torch")
    function, arrays = CASES[name]
    _, good = arrays[key]
    if np.asarray(good).dtype.kind != "f":
        pytest.skip("whole numbers, right and wrong, or names")
    others = {other: value for other, (_, value) in arrays.items() if other != key}
    tensor = torch.tensor(np.asarray(good)).bfloat16()
    assert same(outcome(function, {key: tensor.float().numpy(), **others}), outcome(function, {key: tensor, **others}))


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in EACH if len(CASES[name][1]) > 1])
def test_columns_of_different_lengths_are_refused(name: str, key: str) -> None:
    if key in ("id_scores", "ood_scores", "test_probabilities"):
        pytest.skip("needs no partner of its length")
    function, arrays = CASES[name]
    given = {other: value for other, (_, value) in arrays.items()}
    shorter = np.asarray(given[key])
    shorter = shorter[:, :-1] if (name, key) == ("factor_accuracy_matrix", "correct") else shorter[:-1]
    with pytest.raises(UserError):
        function(**{**given, key: shorter})
