"""Arrays that somebody brings along, by this project's names for them: an ``.npz``, ``.npy`` files, a wide table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError, nearest
from cache_schema.importing.npz import NpzFile

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "logits": ("logit", "logit_list"),
    "probabilities": ("probability", "probs", "softmax"),
    "log_probabilities": ("log_probs", "log_softmax"),
    "labels": ("label", "targets", "target", "y_true", "label_list"),
    "features": ("feature", "feats", "feat", "embeddings", "feat_list"),
    "image_ids": ("image_id", "ids", "paths", "filenames"),
    "weight": ("weights", "w"),
    "bias": ("b",),
}
"""Name of an array -> what others call the same thing; a name that leaves open what it is (``outputs``) is not here."""

_WIDE = {
    "logits": re.compile(r"logits?[_.\- ]?(\d+)"),
    "probabilities": re.compile(r"prob(?:s|ability|abilities)?[_.\- ]?(\d+)"),
    "log_probabilities": re.compile(r"log_?prob(?:s|ability|abilities)?[_.\- ]?(\d+)"),
    "features": re.compile(r"feat(?:s|ures?)?[_.\- ]?(\d+)"),
}


class Source(Protocol):
    """Arrays by name, read whole or block by block."""

    path: Path
    names: list[str]

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        ...

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        ...

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array."""
        ...


class Arrays:
    """Arrays in memory, or mapped into it."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path, self._arrays, self.names = path, dict(arrays), list(arrays)

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        return self._arrays[name].shape, self._arrays[name].dtype

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        return np.asarray(self._arrays[name])

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time."""
        array = self._arrays[name]
        return (np.asarray(array[start : start + rows]) for start in range(0, len(array), rows))


class OwnArrays:
    """The arrays of one or several sources under this project's names. Use as a context manager.

    Parameters
    ----------
    path
        An ``.npz``; an ``.npy`` of what ``kind`` says; or a CSV or Parquet file with a column a class (``logit_0``,
        ``logit_1`` ...), and perhaps ``label``, ``image_id`` and ``feature_0`` ....
    kind
        What an ``.npy`` holds.
    beside
        Name -> ``.npy`` file of further arrays.

    Raises
    ------
    UserError
        A file is not there or is not what its ending says.
    """

    def __init__(self, path: Path, *, kind: str = "logits", beside: Mapping[str, Path] | None = None) -> None:
        self.path = path
        self._npz: NpzFile | None = None
        sources: list[Source] = []
        suffix = path.suffix.lower()
        if suffix == ".npz":
            self._npz = NpzFile(path)
            sources.append(self._npz)
        elif suffix == ".npy":
            sources.append(Arrays(path, {kind: _mapped(path)}))
        else:
            sources.append(Arrays(path, _wide_table(path)))
        sources += [Arrays(file, {name: _mapped(file)}) for name, file in (beside or {}).items()]
        self._of: dict[str, tuple[Source, str]] = {}
        for source in sources:
            for name in source.names:
                self._of[_standard(name, source.names)] = (source, name)
        self.names = list(self._of)

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        source, own = self._found(name)
        return source.shape_and_dtype(own)

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        source, own = self._found(name)
        return source.read(own)

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time."""
        source, own = self._found(name)
        return source.blocks(own, rows)

    def listed(self) -> str:
        """Return the names of the arrays in words."""
        return ", ".join(self.names) or "nothing"

    def _found(self, name: str) -> tuple[Source, str]:
        if name not in self._of:
            raise UserError(f"{self.path} holds no {name!r}{nearest(name, self.names)}; it has {self.listed()}")
        return self._of[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._npz is not None:
            self._npz.__exit__(kind, error, trace)


def _standard(name: str, names: Sequence[str]) -> str:
    for standard, others in OTHER_NAMES.items():
        if name.lower() in others and standard not in names:
            return standard
    return name


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no .npy file of plain numbers or text: {error}") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} holds several arrays: give it as the file to import")
    return array


def wide_columns(names: Sequence[str]) -> dict[str, list[str]]:
    """Return what a table has a column a class (or a feature) of -> those columns, in the order of their numbers."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        for kind, pattern in _WIDE.items():
            if match := pattern.fullmatch(name.lower()):
                found.setdefault(kind, []).append((int(match[1]), name))
    return {kind: [name for _, name in sorted(columns)] for kind, columns in found.items()}


def _wide_table(path: Path) -> dict[str, NDArray[Any]]:
    import polars as pl

    read = pl.read_csv if path.suffix.lower() == ".csv" else pl.read_parquet
    try:
        frame = read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    wide = wide_columns(frame.columns)
    arrays: dict[str, NDArray[Any]] = {}
    for kind, columns in wide.items():
        part = frame.select(columns)
        if bad := next((name for name in columns if not part[name].dtype.is_numeric()), None):
            raise UserError(f"{path}: column {bad!r} is {part[bad].dtype}, not a number")
        arrays[kind] = part.cast(pl.Float64).to_numpy()
    for name in frame.columns:
        if any(name in columns for columns in wide.values()):
            continue
        standard = _standard(name, frame.columns)
        values = frame[name]
        text = standard == "image_ids" or not values.dtype.is_numeric()
        array = np.asarray(["" if v is None else str(v) for v in values.to_list()]) if text else values.to_numpy()
        arrays[standard if standard in OTHER_NAMES else f"metadata.{name}"] = array
    return arrays
