"""Check names, shapes and dtypes of a store's arrays against the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache_schema.format.schema import KINDS, OFFSETS, TEXT, ArraySpec, array_spec, part_arrays, parts_of
from closerlook_common.console.terminal import counted

Arrays = Mapping[str, tuple[tuple[int, ...], str]]
"""Name -> (shape, dtype name)."""

PAIRS = (
    ("logits", "logit_center"),
    ("bank_logits", "bank_logit_center"),
    ("unit_feature_sum", "unit_second_moment"),
)
LOGITS_KINDS = ("logits", "log_probabilities")


def structure_problems(kind: str, arrays: Arrays, details: Mapping[str, Any], rows: int | None = None) -> list[str]:
    """Return every way in which a store's arrays break the schema of its kind.

    Parameters
    ----------
    kind
        Key of ``KINDS``.
    arrays
        The arrays of the store.
    details
        Of its header.
    rows
        Number of rows in the seal; None before sealing.
    """
    spec = KINDS[kind]
    problems = [f"details: {key} is missing" for key in spec.details if key not in details]
    axes: dict[str, tuple[int, str]] = {}
    present: set[str] = set()
    fitting: set[tuple[str, tuple[int, ...], str]] = set()  # columns are mostly alike, and are checked once
    for name in sorted(arrays):
        shape, dtype = arrays[name]
        found = array_spec(kind, name)
        if found is None:
            problems.append(f"{name}: a store of kind {kind} has no such array")
            continue
        row, half = found
        present.add(row.name)
        if not half and TEXT in row.dtypes and name + OFFSETS in arrays:
            half = "bytes"
        if half:
            problems += _array_problems(name, shape, dtype, row, half, arrays, axes)
        elif (row.name, shape, dtype) not in fitting:
            wrong = _array_problems(name, shape, dtype, row, half, arrays, axes)
            problems += wrong
            if not wrong:
                fitting.add((row.name, shape, dtype))
    problems += [f"{row.name}: missing" for row in spec.arrays if row.required and row.name not in present and arrays]
    for one, other in PAIRS:
        if (one in arrays) != (other in arrays):
            problems.append(f"{one} and {other} belong together, one is missing")
    for part, there in parts_of(kind, arrays).items():
        members = [row.name for row in part_arrays(kind, part)]
        if there and len(there) < len(members):
            missing = next(name for name in members if name not in there)
            problems.append(f"{', '.join(members)} belong together, {missing} is missing")
    if kind == "predictions":
        if "logits" not in arrays and "features" not in arrays:
            problems.append("a prediction store needs logits, features or both; this one has neither")
        if details.get("logits_kind") not in LOGITS_KINDS:
            problems.append(f"details: logits_kind {details.get('logits_kind')!r} is none of {', '.join(LOGITS_KINDS)}")
    if axes.get(spec.rows, (1, ""))[0] == 0:
        problems.append("the store has no rows")
    empty = [axis for axis in "BCDVW" if axis in axes and not axes[axis][0]]
    problems += [f"{axes[axis][1]}: axis {axis} has no elements" for axis in empty]
    if rows is not None and axes.get(spec.rows, (rows, ""))[0] != rows:
        length, where = axes[spec.rows]
        problems.append(f"seal: n is {rows}, but {where} has {counted(length, 'row')}")
    if not arrays:
        problems.append("the store holds no arrays")
    return problems


def _array_problems(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    row: ArraySpec,
    half: str,
    arrays: Arrays,
    axes: dict[str, tuple[int, str]],
) -> list[str]:
    if half == "bytes":
        if dtype != "uint8" or len(shape) != 1:
            return [f"{name}: text is uint8 of one axis, not {dtype} {shape}"]
        return [] if name + OFFSETS in arrays else [f"{name}{OFFSETS}: missing"]
    if half == "offsets":
        base = name.removesuffix(OFFSETS)
        if base not in arrays:
            return [f"{base}: missing, only its offsets are there"]
        if dtype != "int64" or len(shape) != 1 or shape[0] < 1:
            return [f"{name}: offsets are int64 of one axis, not {dtype} {shape}"]
        return _axis_problems(name, row.dims[:1], (shape[0] - 1,), axes)
    problems = []
    if dtype not in row.dtypes:
        problems.append(f"{name}: dtype {dtype} is none of {', '.join(row.dtypes)}")
    dims = row.dims
    if dims[-1] == "...":
        dims = dims[:-1] + ("*",) * (len(shape) - len(dims) + 1)
        if len(shape) > 3:
            problems.append(f"{name}: {len(shape)} axes, three at most")
    if len(dims) != len(shape):
        return [*problems, f"{name}: shape {shape} is not ({', '.join(row.dims)})"]
    return problems + _axis_problems(name, dims, shape, axes)


def _axis_problems(
    name: str, dims: tuple[str, ...], shape: tuple[int, ...], axes: dict[str, tuple[int, str]]
) -> list[str]:
    problems = []
    for dim, length in zip(dims, shape, strict=True):
        if dim == "*":
            continue
        if dim not in axes:
            axes[dim] = length, name
        elif axes[dim][0] != length:
            problems.append(f"{name}: axis {dim} is {length} long, but {axes[dim][0]} in {axes[dim][1]}")
    return problems
