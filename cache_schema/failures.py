"""Records of failed jobs: one small file each, so that a cache says what is missing and why."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_schema.errors import CorruptStoreError
from cache_schema.naming import slug, store_folders
from cache_schema.seal import DIGEST_KEY, dump_with_digest, verify_digest

FOLDER = "failures"
_WHOLE_MODEL = "all"
_TRIES = 20


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
    """Keep why a job failed; the newest reason replaces an older one.

    Parameters
    ----------
    cache_path
        The cache.
    model, dataset
        Ids; an empty dataset means the model as a whole.
    reason
        Made into one line.
    """
    failure = Failure(
        model=model,
        dataset=dataset,
        reason=" ".join(reason.split()),
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
            if not again:  # else somebody has cleared the folder's last record meanwhile, and the folder with it
                raise
        finally:
            part.unlink(missing_ok=True)
    return failure


def clear_failure(cache_path: Path | str, model: str, dataset: str) -> None:
    """Forget a failure, because the job has succeeded since; nothing where there is none."""
    path = _path(cache_path, model, dataset)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are in it, or have just removed it
        path.parent.rmdir()


def read_failure(path: Path) -> Failure:
    """Read one record; CorruptStoreError where a byte differs."""
    raw = path.read_bytes()
    verify_digest(raw, path)
    try:
        document = json.loads(raw)
        return Failure(**{name: str(document[name]) for name in ("model", "dataset", "reason", "when")})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"{path} is no record of a failure") from error


def failure_paths(cache_path: Path | str) -> list[Path]:
    """Return the files of all records in a cache."""
    models = {folder for folder in store_folders(cache_path) if folder.parent == Path(cache_path)}
    found: list[Path] = []
    for folder in models:
        # Most have none; and the last record, with it the folder, may be cleared meanwhile.
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / FOLDER) as entries:
            found += [Path(entry.path) for entry in entries if entry.name.endswith(".json")]
    return sorted(found)
