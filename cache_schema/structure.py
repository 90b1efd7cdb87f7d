"""The schema's rules on shapes and dtypes: names, shapes and dtypes of a store's arrays in, a list of
problems out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache_schema.schema import KINDS, OFFSETS, TEXT, ArraySpec, array_spec

Arrays = Mapping[str, tuple[tuple[int, ...], str]]
"""Name -> (shape, dtype name)."""

PAIRS = (("logits", "logit_center"), ("bank_logits", "bank_logit_center"))
LOGITS_KINDS = ("logits", "log_probabilities")


def structure_problems(kind: str, arrays: Arrays, details: Mapping[str, Any]) -> list[str]:
    """Return every way in which a store's arrays do not fit the table of its kind.

    Parameters
    ----------
    kind
        Key of ``KINDS``.
    arrays
        What the store holds.
    details
        Of its header.
    """
    spec = KINDS[kind]
    problems = [f"details: {key} is missing" for key in spec.details if key not in details]
    axes: dict[str, tuple[int, str]] = {}
    present: set[str] = set()
    for name in sorted(arrays):
        shape, dtype = arrays[name]
        found = array_spec(kind, name)
        if found is None:
            problems.append(f"{name}: a store of kind {kind} has no such array")
            continue
        row, half = found
        present.add(row.name)
        is_text = half == "bytes" or (TEXT in row.dtypes and name + OFFSETS in arrays)
        problems += _array_problems(
            name, shape, dtype, row, half or ("bytes" if is_text else ""), arrays, axes
        )
    problems += [
        f"{row.name}: missing" for row in spec.arrays if row.required and row.name not in present and arrays
    ]
    for one, other in PAIRS:
        if (one in arrays) != (other in arrays):
            problems.append(f"{one} and {other} come together, one is missing")
    if kind == "predictions":
        if "logits" not in arrays and "features" not in arrays:
            problems.append("a prediction store holds logits, features or both, this one neither")
        if details.get("logits_kind") not in LOGITS_KINDS:
            problems.append(
                f"details: logits_kind {details.get('logits_kind')!r} is none of {', '.join(LOGITS_KINDS)}"
            )
    if axes.get(spec.rows, (1, ""))[0] == 0:
        problems.append("the store has no rows")
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
        known, where = axes.setdefault(dim, (length, name))
        if known != length:
            problems.append(f"{name}: axis {dim} is {length} long, but {known} in {where}")
    return problems
