"""Weight files: where they lie, their digests (remembered by path, size and time), what to say when they do
not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from closerlook_common.console.waiting import waiting
from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import MissingFileError, require_regular_file
from closerlook_common.user_cache import kept_folder, write_whole
from extract.models.base import WeightsUnavailable

_BLOCK = 1 << 22


def _memo(path: Path) -> Path | None:
    folder = kept_folder("digests")
    return None if folder is None else folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:40]}.json"


def known_digest(path: Path) -> str:
    """Return the SHA-256 of a file if this machine has computed it since the file last changed, else ''."""
    try:
        status, file = path.stat(), _memo(path)
        if file is None:
            return ""
        memo = json.loads(file.read_text(encoding="utf-8"))
        if (memo["size"], memo["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
            return str(memo["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return ""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file and remember it."""
    if known := known_digest(path):
        return known
    sha = hashlib.sha256()
    size = path.stat().st_size / 1e9
    with waiting(f"hashing {path} ({size:.1f} GB), once as long as the file does not change"), path.open("rb") as file:
        before = os.fstat(file.fileno())
        while block := file.read(_BLOCK):
            sha.update(block)
    digest = sha.hexdigest()
    # A cache that cannot be written costs the next run the same hashing, nothing else.
    with contextlib.suppress(OSError):
        status = {"size": before.st_size, "mtime_ns": before.st_mtime_ns}
        memo = {"path": str(path.resolve()), **status, "sha256": digest}
        if (kept := _memo(path)) is not None:
            write_whole(kept, json.dumps(memo).encode())
    return digest


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a small file, computed again on each call: an edit that keeps size and time is seen."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_file(path: Path, where: str) -> Path:
    """Return the path of a weight file on this machine.

    Raises
    ------
    WeightsUnavailable
        It is missing, no regular file, empty, or a Git LFS pointer.
    """
    try:
        require_regular_file(path, "checkpoint")
        if path.stat().st_size:
            return path
        problem = f"checkpoint {path} is empty"
    except MissingFileError as error:
        problem = str(error)
        with contextlib.suppress(OSError, ValueError):
            problem += nearest(path.name, (file.name for file in path.parent.iterdir()))
    except UserError as error:
        problem = str(error)
    raise WeightsUnavailable(f"{where}: {problem}")


def cached_on_hub(repository: str, files: Sequence[str], revision: str | None = None) -> Path | None:
    """Return the first of a hub repository's files that lies in the hub cache; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    for name in files:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


_UNREACHABLE_SECONDS = 600.0
_unreachable_until = 0.0


def fetched_from_hub(repository: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Download the first of these files that a hub repository has, into the hub cache.

    A hub that cannot be reached is not asked again for ten minutes: a list of a hundred models would
    otherwise wait for a hundred time-outs.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    global _unreachable_until
    for name in files:
        try:
            offline = time.monotonic() < _unreachable_until
            return Path(hf_hub_download(repository, name, revision=revision, local_files_only=offline))
        except LocalEntryNotFoundError:
            _unreachable_until = max(_unreachable_until, time.monotonic() + _UNREACHABLE_SECONDS)
            raise
        except EntryNotFoundError as error:
            missing = error
    raise missing


@contextlib.contextmanager
def explaining(model: str, source: str, path: Path | None) -> Iterator[None]:
    """Turn what a library raises on missing or unfit weights into one line that names the model and the
    remedy.

    Parameters
    ----------
    model
        As named in the list.
    source
        Where the weights would come from.
    path
        The local file, where there is one: then nothing is unavailable, the file is unfit.
    """
    try:
        yield
    except WeightsUnavailable:
        raise
    except UserError as error:
        if str(error).startswith(f"{model}: "):
            raise
        raise UserError(f"{model}: {error}") from error
    except Exception as error:  # whatever a library raises on it, the file or the hub is at fault
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 300 else reason[:297] + "..."
        if path is not None:
            raise UserError(f"{model}: the weights in {path} do not fit or cannot be read safely: {reason}") from error
        raise WeightsUnavailable(
            f"{model}: the weights are neither on this machine nor to be had from {source}; download the "
            "file elsewhere and"
            f" name it with checkpoint=FILE, or warm the hub cache (HF_HOME) on a machine with network. "
            f"({reason})"
        ) from error
