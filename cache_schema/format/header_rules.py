"""Check a store's header: every type and range that readers and the analysis rely on.

A header that was changed, or written by a stranger, is refused when the store is opened, not in the middle of a
computation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar

from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import DTYPES, KINDS, MAX_DECODED_BYTES, MAX_RATIO, OFFSETS, parts_of, version_of
from cache_schema.format.structure import structure_problems
from closerlook_common.errors import UserError

Card = TypeVar("Card", ModelCard, DatasetCard)

_DIGITS = 64
_HEX = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
_HEX_ONLY = re.compile(r"[0-9a-f]*")
_LONGEST = 200
_ARRAY = re.compile(rf"[a-z0-9_][a-z0-9._-]{{0,{_LONGEST - 1}}}")
_MOST_ROWS = 1 << 48
_LARGEST_INT = 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST_INT <= value < _LARGEST_INT


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_object(value: Any) -> bool:
    return type(value) is dict or isinstance(value, Mapping)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _list_of(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(rule, value))


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


_ints = _list_of(_is_int)
_OF_TYPE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "str": (_is_text, "a text"),
    "int | None": (_or_none(_is_number), "a number or null"),
    "float | None": (_or_none(_is_number), "a number or null"),
    "Mapping[str, Any]": (_is_object, "an object"),
    "tuple[str, ...]": (_list_of(_is_text), "a list of texts"),
    "tuple[int, ...] | None": (_or_none(_ints), "a list of whole numbers or null"),
    "tuple[tuple[int, ...], ...] | None": (_or_none(_list_of(_ints)), "a list of lists of whole numbers or null"),
}
"""Annotation of a card's field -> what its value must be in JSON."""
_FIELDS = {
    card.__name__: [(field.name, *_OF_TYPE[str(field.type)]) for field in fields(card)]
    for card in (ModelCard, DatasetCard)
}
"""Name of a card -> its fields: name, rule, what the value must be."""

_DETAILS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "predictions": {
        "logits_kind": (_is_text, "a text"),
        "n_valid": (_is_int, "a whole number"),
        "metadata": (_list_of(_is_object), "a list of objects"),
    },
    "head": {
        **dict.fromkeys(("class_space", "prompt_set"), (_is_text, "a text")),
        "templates": (_list_of(_is_text), "a list of texts"),
        "n_templates": (_is_int, "a whole number"),
        **dict.fromkeys(("logit_scale", "logit_bias", "residual"), (_or_none(_is_number), "a number or null")),
        **dict.fromkeys(("normalize_features", "affine", "default"), (_is_flag, "true or false")),
    },
    "reference": {
        "n": (_is_int, "a whole number"),
        **dict.fromkeys(("max_logit_sum", "logsumexp_sum"), (_is_number, "a number")),
    },
    "summary": {"columns": (_list_of(_is_object), "a list of objects"), "variant": (_is_text, "a text")},
    "texts": {},
}
"""Kind of store -> key of its details -> what its value must be."""

BANK_DETAILS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bank_per_class": (lambda value: _is_int(value) and value >= 0, "a number of rows"),
    "bank_seed": (_is_int, "a whole number"),
    "unit_features": (_is_flag, "true or false"),
    "skipped": (lambda value: _is_int(value) and value >= 0, "a number of rows"),
}
"""Key of a reference's details that comes with ``bank_keys`` -> what its value must be."""

PART_DETAILS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "patches": {
        "tokens": (_is_text, "a text"),
        "temperature": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    },
    "tokens": {"layer": (_is_text, "a text")},
    "blocks": {"numbers": (_ints, "a list of whole numbers"), "of": (_is_int, "a whole number")},
    "views": {
        "of": (lambda value: _is_int(value) and value > 0, "a number of views"),
        "seed": (_is_int, "a whole number"),
        **dict.fromkeys(("scale", "ratio"), (_list_of(_is_number), "a list of numbers")),
        "flip": (lambda value: _is_number(value) and 0 <= value <= 1, "a probability"),
    },
}
"""Part of a prediction store -> key of its details -> what its value must be."""


def check_rules(header: Mapping[str, Any]) -> None:
    """Check a header whose kind is known.

    Parameters
    ----------
    header
        The header that was read, or will be sealed.

    Raises
    ------
    ValueError
        The first rule that does not hold, in one line.
    """
    kind, seal = header["kind"], header["seal"]
    _expect(header, "identity", _is_digest, "64 hexadecimal digits")
    for key in ("model", "details", "record", "seal"):
        _expect(header, key, _is_object, "an object")
    check_card(header["model"], ModelCard, "model")
    if "dataset" not in header:
        raise ValueError("dataset is missing")
    dataset = header["dataset"]
    if KINDS[kind].has_dataset:
        _expect(header, "dataset", _is_object, "an object")
        check_card(header["dataset"], DatasetCard, "dataset")
    elif dataset is not None:
        raise ValueError(f"dataset is given, but a store of kind {kind} has none")
    arrays = _arrays(seal)
    check_details(kind, header["details"])
    found = structure_problems(kind, arrays, header["details"], int(seal["n"]))
    if found:
        raise ValueError(found[0])
    version, needed = header["schema_version"], version_of(kind, arrays)
    if version < needed:
        raise ValueError(f"schema_version is {version}, but its arrays are those of version {needed}")
    if kind == "head":
        _check_templates(header["details"], arrays)
    if kind == "reference":
        _check_bank(header["details"], arrays)
    if kind == "predictions":
        if not 0 <= header["details"]["n_valid"] <= seal["n"]:
            raise ValueError("details.n_valid is not between 0 and the number of rows")
        _check_columns(header["details"]["metadata"], arrays, "metadata.")
        _check_parts(header["details"], arrays)
    if kind == "summary":
        _check_columns(header["details"]["columns"], arrays, "column.")
    if dataset is not None:
        _check_classes(dataset, arrays)


def _expect(values: Mapping[str, Any], key: str, rule: Callable[[Any], bool], what: str, above: str = "") -> None:
    if key not in values:
        raise ValueError(f"{above}{key} is missing")
    if not rule(values[key]):
        raise ValueError(f"{above}{key} is not {what}")


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def check_card(card: Any, of: type[Card], name: str) -> Card:
    """Return the card that a part of a header holds; ValueError if it holds none."""
    if not _is_object(card):
        raise ValueError(f"{name} is not an object")
    for key, rule, what in _FIELDS[of.__name__]:
        if key in card and not rule(card[key]):
            raise ValueError(f"{name}.{key} is not {what}")
    _expect(card, "id", _is_text, "a text", above=f"{name}.")
    try:
        return of.from_record(card)
    except (UserError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from None


def check_details(kind: str, details: Any) -> None:
    """Raise ValueError if the details of a kind of store lack a value, or hold one of another type."""
    if not _is_object(details):
        raise ValueError("details is not an object")
    for key, (rule, what) in _DETAILS[kind].items():
        _expect(details, key, rule, what, "details.")


def _arrays(seal: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of each array that the seal lists."""
    _expect(seal, "n", lambda n: _is_int(n) and 1 <= n < _MOST_ROWS, "a number of rows", "seal.")
    _expect(seal, "written", _is_text, "a text", "seal.")
    _expect(seal, "digest", _is_digest, "64 hexadecimal digits", "seal.")
    _expect(seal, "arrays", _is_object, "an object", "seal.")
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    digests = []
    for name, entry in seal["arrays"].items():
        if not _is_array_name(name) or not _is_object(entry):
            raise ValueError(f"seal.arrays names {name[:80]!r}, which cannot be an array")
        shape, dtype, digest = entry.get("shape"), entry.get("dtype"), entry.get("digest")
        if not (_is_shape(shape) and _is_dtype(dtype) and isinstance(digest, str) and len(digest) == _DIGITS):
            above = f"seal.arrays.{name}."
            _expect(entry, "shape", _is_shape, "one to three lengths", above)
            _expect(entry, "dtype", _is_dtype, "a known type", above)
            _expect(entry, "digest", _is_digest, "64 hexadecimal digits", above)
        found[name] = tuple(shape), dtype
        digests.append(digest)
    if not _HEX_ONLY.fullmatch("".join(digests)):
        wrong = next(name for name, digest in zip(found, digests, strict=True) if not _is_digest(digest))
        raise ValueError(f"seal.arrays.{wrong}.digest is not 64 hexadecimal digits")
    return found


def _is_array_name(name: str) -> bool:
    return len(name) <= _LONGEST and _fits_array(name)


@lru_cache(4096)
def _fits_array(name: str) -> bool:
    return _ARRAY.fullmatch(name) is not None


def _is_shape(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 3:
        return False
    for length in value:  # noqa: SIM110  a loop, as there are many arrays
        if type(length) is not int or not 0 <= length < _MOST_ROWS:
            return False
    return True


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def _check_columns(
    listed: Sequence[Mapping[str, Any]], arrays: Mapping[str, tuple[tuple[int, ...], str]], prefix: str
) -> None:
    """Check that the columns in the details are the arrays of the store."""
    there = {name for name in arrays if name.startswith(prefix) and not name.endswith(OFFSETS)}
    names, used = set(), set()
    for item in listed:
        name: Any = item.get("name")
        array: Any = item.get("array")
        kind: Any = item.get("type")
        if not (isinstance(name, str) and isinstance(array, str) and isinstance(kind, str)):
            for key in ("name", "array", "type"):
                _expect(item, key, _is_text, "a text", "details: a column's ")
        is_text = array + OFFSETS in arrays
        if array not in there or kind != ("text" if is_text else arrays[array][1]):
            raise ValueError(f"details: column {name[:80]!r} is not an array of the store")
        names.add(name)
        used.add(array)
    if used != there or len(names) != len(listed) or len(used) != len(listed):
        raise ValueError("details: the columns are not the arrays of the store")


def _check_templates(details: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Check that embeddings of templates are of as many templates as the details say."""
    if "text_embeddings" not in arrays:
        return
    held = arrays["text_embeddings"][0][0]
    for what, count in (("n_templates", details["n_templates"]), ("templates", len(details["templates"]) or held)):
        if count != held:
            raise ValueError(f"details: {what} says {count} templates, text_embeddings has {held}")


def _check_bank(details: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Check that the details say how a bank with keys was chosen."""
    if "bank_keys" in arrays:
        for key, (rule, what) in BANK_DETAILS.items():
            _expect(details, key, rule, what, "details.")


def _check_parts(details: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Check that the details say how each part was made."""
    for part, there in parts_of("predictions", arrays).items():
        if there:
            _expect(details, part, _is_object, "an object", "details.")
            for key, (rule, what) in PART_DETAILS[part].items():
                _expect(details[part], key, rule, what, f"details.{part}.")


def _check_classes(card: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Check that mask and map are indices of classes, each once."""
    # With a class map, the card counts super-classes, so the logits give the limit.
    limit = next((arrays[name][0][1] for name in ("logits", "bank_logits") if name in arrays), 1 << 31)
    mask, groups = card.get("class_mask"), card.get("class_map")
    if groups is not None and not all(groups):
        raise ValueError("dataset.class_map has a super-class without members")
    for name, members in (
        ("class_mask", mask),
        ("class_map", None if groups is None else [i for g in groups for i in g]),
    ):
        if members is None:
            continue
        if not members:
            raise ValueError(f"dataset.{name} keeps no class")
        if min(members) < 0 or max(members) >= limit:
            wrong = min(members) if min(members) < 0 else max(members)
            raise ValueError(f"dataset.{name} holds class {wrong}; classes are 0 to {limit - 1}")
        if len(set(members)) != len(members):
            raise ValueError(f"dataset.{name} holds a class twice")


def check_cost(header: Mapping[str, Any], stored: int) -> None:
    """Check that a store does not decompress to far more than its size on disk.

    Parameters
    ----------
    header
        A header that :func:`check_rules` has passed.
    stored
        Size of the store in bytes.

    Raises
    ------
    ValueError
        The arrays are larger than ``MAX_DECODED_BYTES`` and than ``MAX_RATIO`` times the size on disk.
    """
    total = sum(math.prod(entry["shape"]) * DTYPES[entry["dtype"]] for entry in header["seal"]["arrays"].values())
    if total > max(MAX_DECODED_BYTES, MAX_RATIO * stored):
        raise ValueError(f"{stored} bytes would decompress to {total}")
