"""The schema as data: the arrays of each kind of store. Both backends and the checks loop over these tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

FORMAT = "closerlook"
SCHEMA_VERSION = 2
"""The newest version; raised whenever an older reader would fail or misread. A store gives the oldest that has its
arrays, see :func:`version_of`."""

TEXT = "utf8"
"""The type of a text array: its UTF-8 bytes end to end in ``name``, their bounds in ``name + OFFSETS``."""

OFFSETS = ".offsets"
TABULAR = ("int32", "int64", "int16", "int8", "uint8", "float32", "float64", "bool")
DTYPES: Mapping[str, int] = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8, "float16": 2, "float32": 4, "float64": 8
}  # fmt: skip
"""Element types of the format, and their size in bytes."""

ROWS_A_CHUNK = 1024
ROWS_A_COLUMN_CHUNK = 65_536
CHUNKS_A_SHARD = 8
BYTES_A_CHUNK = 4 << 20

MAX_HEADER_BYTES = 32 << 20
"""Largest header; a hundred thousand class names of three hundred characters fit."""
MAX_DECODED_BYTES = 1 << 30
MAX_RATIO = 256
"""Largest ratio of decoded size to size on disk for a store that decodes to more than ``MAX_DECODED_BYTES``. Real
outputs have ratios of 1 to 3."""


@dataclass(frozen=True)
class ArraySpec:
    """One row of the schema.

    Attributes
    ----------
    name
        The array's name in the store. A name that ends in ``.`` is a family: any number of arrays called
        ``name + key``, whose titles are listed in the header's details.
    dims
        Names of the axes; an axis has the same length wherever it appears in a store. ``*`` is any length,
        and a trailing ``...`` any number of further axes up to two.
    dtypes
        Allowed element types; the first is the default.
    required
        Whether every store of that kind holds it.
    what
        One line on its meaning.
    since
        The version of the schema that brought it.
    part
        The name of the arrays that it comes with, all of them or none; their details are the key of that name. Empty
        for an array that is not of such a part.
    """

    name: str
    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    required: bool
    what: str
    since: int = 1
    part: str = ""

    @property
    def is_family(self) -> bool:
        """Whether this row describes any number of arrays."""
        return self.name.endswith(".")


@dataclass(frozen=True)
class KindSpec:
    """One kind of store.

    Attributes
    ----------
    folder
        Folder of its stores below the model's folder; empty for the model's folder itself.
    rows
        The axis whose length is ``len(store)``.
    has_dataset
        Whether a store of this kind belongs to a dataset.
    arrays
        The arrays.
    details
        Required keys of the header's ``details``.
    """

    folder: str
    rows: str
    has_dataset: bool
    arrays: tuple[ArraySpec, ...]
    details: tuple[str, ...] = ()


KINDS: Mapping[str, KindSpec] = {
    "predictions": KindSpec(
        folder="",
        rows="n",
        has_dataset=True,
        arrays=(
            ArraySpec("logits", ("n", "C"), ("float16",), False, "row-centred logits: logit minus logit_center"),
            ArraySpec("logit_center", ("n",), ("float32",), False, "the row's maximum over the kept classes"),
            ArraySpec("features", ("n", "D"), ("float16", "float32"), False, "penultimate features, not normalised"),
            ArraySpec("patch_features", ("n", "D"), ("float16", "float32"), False, "the best patch", 2, "patches"),
            ArraySpec("patch_score", ("n",), ("float32",), False, "its largest softmax over the classes", 2, "patches"),
            ArraySpec("patch_index", ("n",), ("int32",), False, "which patch, -1 in invalid rows", 2, "patches"),
            ArraySpec("token_class", ("n", "W"), ("float16", "float32"), False, "class token", 2, "tokens"),
            ArraySpec("token_mean", ("n", "W"), ("float16", "float32"), False, "mean of the patches", 2, "tokens"),
            ArraySpec("block_class", ("n", "B", "W"), ("float16", "float32"), False, "of four blocks", 2, "blocks"),
            ArraySpec("view_features", ("n", "V", "D"), ("float16", "float32"), False, "surest views", 2, "views"),
            ArraySpec("view_entropies", ("n", "V"), ("float32",), False, "of their softmax, rising", 2, "views"),
            ArraySpec("view_indices", ("n", "V"), ("int16",), False, "which views, -1 in invalid rows", 2, "views"),
            ArraySpec("labels", ("n",), ("int32",), True, "index in the label space, -1 where there is none"),
            ArraySpec("valid", ("n",), ("bool",), True, "false where there is no output for the image"),
            ArraySpec("image_id", ("n",), (TEXT,), True, "path relative to the dataset's root, or key"),
            ArraySpec("metadata.", ("n",), (TEXT, "int64", "float64", "bool"), False, "a column of the manifest"),
        ),
        details=("logits_kind", "n_valid", "metadata"),
    ),
    "head": KindSpec(
        folder="heads",
        rows="C",
        has_dataset=False,
        arrays=(
            ArraySpec("weight", ("C", "D"), ("float32",), True, "one row a class"),
            ArraySpec("bias", ("C",), ("float32",), True, "added last; holds logit_bias already"),
            ArraySpec("text_sum", ("C", "D"), ("float32",), False, "sum over templates of unit text embeddings"),
            ArraySpec("class_name", ("C",), (TEXT,), True, "names by index"),
            ArraySpec("text_embeddings", ("T", "C", "D"), ("float16", "float32"), False, "unit rows, by template", 2),
        ),
        details=(
            "class_space",
            "prompt_set",
            "templates",
            "n_templates",
            "logit_scale",
            "logit_bias",
            "normalize_features",
            "affine",
            "residual",
            "default",
        ),
    ),
    "reference": KindSpec(
        folder="references",
        rows="C",
        has_dataset=True,
        arrays=(
            ArraySpec("class_count", ("C",), ("int64",), True, "images of each class"),
            ArraySpec("feature_sum", ("C", "D"), ("float64",), True, "sum of features of each class"),
            ArraySpec("correct_count", ("C",), ("int64",), True, "of these, predicted right"),
            ArraySpec("correct_feature_sum", ("C", "D"), ("float64",), True, "sum of their features"),
            ArraySpec("predicted_count", ("C",), ("int64",), True, "images predicted as each class"),
            ArraySpec("softmax_sum", ("C", "C"), ("float64",), True, "row k: sum of softmax where k is predicted"),
            ArraySpec("second_moment", ("D", "D"), ("float64",), True, "sum of outer products of the features"),
            ArraySpec("correct_logit_sum", ("C", "C"), ("float64",), False, "row k: sum of logits, k right"),
            ArraySpec("bank_features", ("m", "D"), ("float16", "float32"), True, "class-balanced bank of features"),
            ArraySpec("bank_logits", ("m", "C"), ("float16",), True, "row-centred logits of the bank"),
            ArraySpec("bank_logit_center", ("m",), ("float32",), True, "their centres"),
            ArraySpec("bank_labels", ("m",), ("int32",), True, "their labels"),
            ArraySpec("bank_keys", ("m",), ("int64",), False, "hashes that chose them, ascending in a class", 2),
            ArraySpec("unit_feature_sum", ("C", "D"), ("float64",), False, "sum of unit features of each class", 2),
            ArraySpec("unit_second_moment", ("D", "D"), ("float64",), False, "sum of their outer products", 2),
        ),
        details=("n", "max_logit_sum", "logsumexp_sum"),
    ),
    "summary": KindSpec(
        folder="summaries",
        rows="n",
        has_dataset=True,
        arrays=(ArraySpec("column.", ("n", "..."), (*TABULAR, TEXT), True, "a statistic, one row an image"),),
        details=("columns", "variant"),
    ),
    "texts": KindSpec(
        folder="texts",
        rows="m",
        has_dataset=True,
        arrays=(
            ArraySpec("embeddings", ("m", "D"), ("float32",), True, "unit-norm text embeddings"),
            ArraySpec("text", ("m",), (TEXT,), True, "the captions"),
            ArraySpec("image_index", ("m",), ("int32",), True, "row of the image that the caption belongs to"),
        ),
    ),
}
"""Kind of store -> what it holds."""


class Layout(NamedTuple):
    """Rows per chunk (what a reader decodes) and rows per shard (what a writer writes)."""

    chunk_rows: int
    shard_rows: int


def layout(shape: Sequence[int], itemsize: int) -> Layout:
    """Return the chunking of an array.

    Parameters
    ----------
    shape
        Of the array; the first axis is the rows.
    itemsize
        Bytes an element.

    Returns
    -------
    Layout
        About 1,024 rows per chunk (65,536 for a column), fewer if rows are wide, so that a chunk stays under
        4 MiB; eight chunks per shard.

    Examples
    --------
    >>> layout((50_000, 1_000), 2)
    Layout(chunk_rows=1024, shard_rows=8192)
    >>> layout((20, 1_000), 2)
    Layout(chunk_rows=20, shard_rows=20)
    """
    n = max(1, shape[0])
    row_bytes = itemsize
    for length in shape[1:]:
        row_bytes *= max(1, length)
    rows = ROWS_A_CHUNK if len(shape) > 1 else ROWS_A_COLUMN_CHUNK
    while rows > 1 and rows * row_bytes > BYTES_A_CHUNK:
        rows //= 2
    rows = min(rows, n)
    return Layout(rows, rows * min(CHUNKS_A_SHARD, -(-n // rows)))


@lru_cache(4096)
def array_spec(kind: str, name: str) -> tuple[ArraySpec, str] | None:
    """Return the table row of an array, and which half of a text array it is.

    Parameters
    ----------
    kind
        Kind of store.
    name
        Name of an array on disk.

    Returns
    -------
    tuple or None
        The row and one of ``""`` (a plain array), ``"bytes"`` or ``"offsets"`` (the two halves of a text
        array); None where the schema knows no such array.
    """
    base = name.removesuffix(OFFSETS)
    for spec in KINDS[kind].arrays:
        of_family = spec.is_family and base.startswith(spec.name) and len(base) > len(spec.name)
        if of_family or (spec.name == base and not spec.is_family):
            if name.endswith(OFFSETS):
                return (spec, "offsets") if TEXT in spec.dtypes else None
            return spec, "bytes" if spec.dtypes == (TEXT,) else ""
    return None


def parts_of(kind: str, arrays: Iterable[str]) -> dict[str, list[str]]:
    """Return the parts that a kind of store may hold, each with those of its arrays that are among some names.

    Parameters
    ----------
    kind
        Kind of store.
    arrays
        Names of arrays on disk.

    Examples
    --------
    >>> parts_of("predictions", ["features", "patch_score"])["patches"]
    ['patch_score']
    """
    there = set(arrays)
    found: dict[str, list[str]] = {}
    for spec in KINDS[kind].arrays:
        if spec.part:
            found.setdefault(spec.part, []).extend([spec.name] * (spec.name in there))
    return found


def part_names(kind: str) -> dict[str, str]:
    """Return the parts that a kind of store may hold, each with the first of its arrays.

    Examples
    --------
    >>> part_names("predictions")["patches"]
    'patch_features'
    """
    found: dict[str, str] = {}
    for spec in KINDS[kind].arrays:
        if spec.part:
            found.setdefault(spec.part, spec.name)
    return found


def part_arrays(kind: str, part: str) -> tuple[ArraySpec, ...]:
    """Return the rows of the arrays of a part."""
    return tuple(spec for spec in KINDS[kind].arrays if spec.part == part)


def version_of(kind: str, arrays: Iterable[str]) -> int:
    """Return the oldest version of the schema that has all of some arrays.

    Parameters
    ----------
    kind
        Kind of store.
    arrays
        Names of arrays on disk; unknown ones do not count.

    Examples
    --------
    >>> version_of("reference", ["feature_sum"]), version_of("reference", ["feature_sum", "bank_keys"])
    (1, 2)
    """
    found = (array_spec(kind, name) for name in arrays)
    return max((spec[0].since for spec in found if spec is not None), default=1)
