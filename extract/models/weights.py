"""Weight files: where they lie, their digests (remembered by path, size and time), what to say when they do
not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cache_schema.errors import UserError, nearest
from cache_schema.user_cache import user_cache, write_whole
from extract.models.base import WeightsUnavailable

_BLOCK = 1 << 22


def _memo(path: Path) -> Path:
    return user_cache() / "digests" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:40]}.json"


def known_digest(path: Path) -> str:
    """Return the SHA-256 of a file if this machine has computed it since the file last changed, else ''."""
    try:
        status = path.stat()
        memo = json.loads(_memo(path).read_text(encoding="utf-8"))
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
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        while block := file.read(_BLOCK):
            sha.update(block)
    digest = sha.hexdigest()
    # A cache that cannot be written costs the next run the same hashing, nothing else.
    with contextlib.suppress(OSError):
        status = {"size": before.st_size, "mtime_ns": before.st_mtime_ns}
        memo = {"path": str(path.resolve()), **status, "sha256": digest}
        write_whole(_memo(path), json.dumps(memo).encode())
    return digest


def checkpoint_file(path: Path, where: str) -> Path:
    """Return a local checkpoint's path, or say that it is not there."""
    if path.is_file():
        return path
    problem = "is a folder, not a weight file" if path.is_dir() else "does not exist"
    if not path.exists() and path.parent.is_dir():
        problem += nearest(path.name, (file.name for file in path.parent.iterdir()))
    raise WeightsUnavailable(f"{where}: checkpoint {path} {problem}")


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


_BEGINNINGS = (b"PK", b"\x80", b"\x1f\x8b")
"""First bytes of what ``torch.save`` writes, now and before 1.6, and of a zipped one."""


def _unreadable(path: Path | None) -> str:
    """Return why a file that is no plain set of tensors cannot be read."""
    start = b""
    with contextlib.suppress(OSError):
        if path is not None:
            with path.open("rb") as file:
                start = file.read(40)
    if path is not None and not start.startswith(_BEGINNINGS):
        if start.startswith(b"version https://git-lfs"):
            return "it is a pointer of git-lfs, not the weights: run 'git lfs pull' where it was cloned"
        return f"it is no weight file, it begins with {start[:24].decode('latin-1')!r}"
    return (
        "it holds more than tensors, which only code could read; save model.state_dict() alone, or as .safetensors"
    )


_LIBRARY_ERRORS = (
    RuntimeError, KeyError, ValueError, TypeError, OSError, EOFError, AssertionError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip


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
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    from safetensors import SafetensorError

    try:
        yield
    except WeightsUnavailable:
        raise
    except UserError as error:
        if str(error).startswith(f"{model}: "):
            raise
        raise UserError(f"{model}: {error}") from error
    except (*_LIBRARY_ERRORS, SafetensorError, EntryNotFoundError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else reason[:297] + "..."
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:
            reason = _unreadable(path)
        if path is not None:
            raise UserError(
                f"{model}: the weights in {path} do not fit or cannot be read safely: {reason}"
            ) from error
        raise WeightsUnavailable(
            f"{model}: the weights are neither on this machine nor to be had from {source}; download the "
            "file elsewhere and"
            f" name it with checkpoint=FILE, or warm the hub cache (HF_HOME) on a machine with network. "
            f"({reason})"
        ) from error
