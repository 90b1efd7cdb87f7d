"""Records of failed jobs: one small file each, which says why a store is missing."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_schema.format.naming import slug, store_folders
from cache_schema.format.plain_files import read_plain
from cache_schema.format.seal import DIGEST_KEY, dump_with_digest, verify_digest
from cache_schema.format.strict_json import parse_json
from closerlook_common.errors import CorruptStoreError
from closerlook_common.redaction import redact

FOLDER = "failures"
_WHOLE_MODEL = "all"
_TRIES = 20
_LARGEST = 1 << 20
"""Bytes of a record; a reason is one line."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that failed.

    Attributes
    ----------
    model, dataset
        Ids; ``dataset`` is empty where the model as a whole failed (its weights could not be loaded).
    reason
        One line.
    when
        UTC, ISO 8601.
    """

    model: str
    dataset: str
    reason: str
    when: str


def _path(cache_path: Path | str, model: str, dataset: str) -> Path:
    name = slug(dataset) if dataset else _WHOLE_MODEL
    return Path(cache_path) / slug(model) / FOLDER / f"{name}.json"


def record_failure(cache_path: Path | str, model: str, dataset: str, reason: str) -> Failure:
    """Record why a job failed; replace an earlier reason.

    Parameters
    ----------
    cache_path
        The cache.
    model, dataset
        Ids; an empty dataset means the model as a whole.
    reason
        Stored as one line, without secrets.
    """
    failure = Failure(
        model=model,
        dataset=dataset,
        reason=redact(" ".join(reason.split())),
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    path = _path(cache_path, model, dataset)
    raw = dump_with_digest({**asdict(failure), DIGEST_KEY: None})
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    for again in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(raw)
            part.replace(path)
            break
        except (FileNotFoundError, FileExistsError):
            if not again:  # another process may have removed the last record and its folder meanwhile
                raise
        finally:
            part.unlink(missing_ok=True)
    return failure


def clear_failure(cache_path: Path | str, model: str, dataset: str) -> None:
    """Remove the record of a failure after the job succeeded; no-op if there is none."""
    path = _path(cache_path, model, dataset)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or already removed
        path.parent.rmdir()


def read_failure(path: Path) -> Failure:
    """Read one record; CorruptStoreError where a byte differs."""
    raw = read_plain(path, _LARGEST)
    verify_digest(raw, path)
    try:
        document = parse_json(raw)
        return Failure(**{name: str(document[name]) for name in ("model", "dataset", "reason", "when")})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"{path} is not a record of a failure") from error


def failure_paths(cache_path: Path | str) -> list[Path]:
    """Return the files of all records in a cache."""
    models = {folder for folder in store_folders(cache_path) if folder.parent == Path(cache_path)}
    found: list[Path] = []
    for folder in models:
        # Most models have none, and another process may remove the last record and its folder.
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / FOLDER) as entries:
            found += [
                Path(entry.path) for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")
            ]
    return sorted(found)
