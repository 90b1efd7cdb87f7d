"""Build a store of any kind: stage, check, seal, publish by one rename."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.backends import files_of
from cache_schema.backends.base import StoreFiles
from cache_schema.format.header_rules import check_rules
from cache_schema.format.identities import to_json_value
from cache_schema.format.naming import published, store_folder, store_name
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import FORMAT, version_of
from cache_schema.format.seal import ArrayDigest, store_digest
from cache_schema.format.structure import structure_problems
from cache_schema.format.text_arrays import encode_text
from cache_schema.writing.staging import Stage
from closerlook_common.distribution import NAME, VERSION
from closerlook_common.errors import CorruptStoreError, StoreExistsError, UserError

_TRIES = 20
"""How often to try to replace a store that other writers replace at the same time."""


class RowStream:
    """Rows of one array, added in order in blocks of any size, written one whole shard at a time.

    Parameters
    ----------
    files
        The staged store.
    name, shape, dtype
        Of the array; the number of rows must be known.
    """

    def __init__(self, files: StoreFiles, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype
        self.digest = ArrayDigest(dtype, shape)
        self.rows = 0
        self._files = files
        self._shard_rows = files.create(name, shape, dtype)
        self._buffer = np.empty((min(self._shard_rows, shape[0]), *shape[1:]), dtype)
        self._filled = 0

    def push(self, block: NDArray[Any]) -> None:
        """Add rows. The last shard is written by :meth:`flush`, which can run in parallel for several stores."""
        done = 0
        while done < len(block):
            if self._filled == len(self._buffer):
                self.flush()
            take = min(len(block) - done, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + take] = block[done : done + take]
            self._filled += take
            done += take

    def flush(self) -> None:
        """Write the remaining rows; call it after the last row."""
        if self._filled:
            block = self._buffer[: self._filled]
            self._files.write(self.name, self.rows, block)
            self.digest.update(block)
            self.rows += self._filled
            self._filled = 0

    def entry(self) -> dict[str, Any]:
        """Return the array's entry in the seal."""
        return {"shape": list(self.shape), "dtype": self.dtype.name, "digest": self.digest.hexdigest()}


class StoreBuilder:
    """A store being written. Use as a context manager: leaving without ``publish`` removes it.

    Parameters
    ----------
    cache_path
        The cache's folder; created if needed.
    kind
        Key of ``KINDS``.
    model, dataset
        The cards; no dataset for heads.
    name
        First part of the file name: the dataset's id, or ``head_name(...)``.
    identity
        64 hexadecimal digits.
    backend
        ``zarr`` or ``hdf5``.
    record
        Anything worth keeping: versions, command, device, speed.
    overwrite
        Replace a published store of the same identity.

    Raises
    ------
    StoreExistsError
        A store of that identity is published already.
    """

    def __init__(
        self,
        cache_path: Path | str,
        kind: str,
        *,
        model: ModelCard,
        dataset: DatasetCard | None,
        name: str,
        identity: str,
        backend: str = "zarr",
        record: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        target = store_folder(cache_path, kind, model.id) / store_name(name, identity, backend)
        self._overwrite = overwrite
        self._published = functools.partial(published, cache_path, kind, model.id, name, identity)
        if not overwrite and (there := self._published()):
            raise StoreExistsError(f"{there} exists already; delete it first or replace it with `overwrite=True`")
        self.kind = kind
        self.record: dict[str, Any] = {"versions": versions(), **(record or {})}
        self.details: dict[str, Any] = {}
        self._expected = ""
        self._version = 0
        self._header: dict[str, Any] = {
            "format": FORMAT,
            "schema_version": 1,  # that of the arrays is known when it is sealed
            "kind": kind,
            "identity": identity,
            "model": to_json_value(model.to_record(), "model"),
            "dataset": None if dataset is None else to_json_value(dataset.to_record(), "dataset"),
        }
        to_json_value(self.record, "record")  # fail now, not after an hour of work
        self._streams: dict[str, RowStream] = {}
        self._stage = Stage(target)
        try:
            self._files = files_of(backend, self._stage.path)
        except BaseException:
            self._stage.remove()
            raise
        try:
            self._files.begin(self._header)
        except BaseException:
            self.abandon()
            raise

    def copy_header(self, header: Mapping[str, Any]) -> None:
        """Copy cards, details and record of another store.

        ``publish`` then refuses to seal a store with another digest.
        """
        for key in ("identity", "model", "dataset"):
            self._header[key] = header[key]
        self._version = int(header["schema_version"])
        self.details, self.record = dict(header["details"]), dict(header["record"])
        self._expected = str(header["seal"]["digest"])

    def stream(self, name: str, shape: tuple[int, ...], dtype: Any) -> RowStream:
        """Create an array whose rows are added later."""
        self._streams[name] = RowStream(self._files, name, shape, np.dtype(dtype))
        return self._streams[name]

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Write a whole array."""
        values = np.ascontiguousarray(values)
        self.stream(name, values.shape, values.dtype).push(values)

    def add_text(self, name: str, values: Sequence[str]) -> None:
        """Write a text array."""
        for part, array in encode_text(name, values).items():
            self.add(part, array)

    def publish(self, n: int) -> Path:
        """Check, seal and publish.

        Parameters
        ----------
        n
            Rows of the store.

        Returns
        -------
        Path
            Of the published store.
        """
        try:
            for stream in self._streams.values():
                stream.flush()
            self._stage.check()  # first, because missing files would be reported as another problem
            self._seal(n)
            if self._overwrite:
                self._replace()
            else:
                self._stage.publish()
        finally:
            self.abandon()
        return self._stage.target

    def _replace(self) -> None:
        for again in reversed(range(_TRIES)):
            try:
                self._stage.publish(replaces=self._published())
                return
            except StoreExistsError:
                if not again:  # otherwise another writer replaced it first
                    raise

    def _seal(self, n: int) -> None:
        problems = [
            f"{stream.name}: {stream.rows} rows were written, {stream.shape[0]} were expected"
            for stream in self._streams.values()
            if stream.rows != stream.shape[0]
        ]
        arrays = {name: (stream.shape, stream.dtype.name) for name, stream in self._streams.items()}
        details = to_json_value(self.details, "details")
        problems += structure_problems(self.kind, arrays, details)
        if problems:
            raise UserError(f"{self._stage.target.name} cannot be sealed: {'; '.join(problems)}")
        header = {**self._header, "details": details, "record": to_json_value(self.record, "record")}
        header["schema_version"] = self._version or version_of(self.kind, self._streams)
        entries = {name: self._streams[name].entry() for name in sorted(self._streams)}
        digest = store_digest(header, entries)
        if self._expected not in ("", digest):
            raise CorruptStoreError(f"{self._stage.target.name}: the content is not the one that was sealed")
        header["seal"] = {
            "n": n,
            # With microseconds, so that the newer of two stores made within a second is known.
            "written": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "arrays": entries,
            "digest": digest,
        }
        try:
            check_rules(header)
        except ValueError as error:
            raise UserError(f"{self._stage.target.name} cannot be sealed: {error}") from None
        self._files.seal(header)

    def abandon(self) -> None:
        """Remove the staged files; no-op after ``publish``."""
        try:
            self._files.close()
        except (OSError, RuntimeError):
            pass  # the file is deleted anyway
        finally:
            self._stage.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the software that writes a store."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), NAME: VERSION}
    for name in ("numpy", "numcodecs", "h5py"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
