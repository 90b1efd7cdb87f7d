"""What stops everything, what stops one job, and how either is reported in a line."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache_schema.format import failures
from closerlook_common.errors import CacheError, CloserlookError, is_full
from extract.passes.events import Event, Listener
from extract.passes.image_rows import DatasetStoppedError

if TYPE_CHECKING:
    from extract.planning.jobs import Job


class CacheUnwritableError(CacheError):
    """Nothing more can be written to the cache, by this model or any other."""


class DeviceLostError(CloserlookError):
    """The device answers every call with an error; only a new process can use it again."""


def raise_if_full(cache: Path, error: BaseException) -> None:
    """Raise `CacheUnwritableError` where an error says that the disk is full or may not be written to."""
    if is_full(error):
        raise CacheUnwritableError(
            f"cannot write to {cache}: {error.strerror};"
            " what is sealed is safe, make room and run the same command again"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return an exception as one line; its kind is named where the text alone would puzzle."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    # torch.OutOfMemoryError is known by its name, so that this module needs no torch.
    known = isinstance(error, CloserlookError | OSError | DatasetStoppedError)
    plain = known or type(error).__name__ == "OutOfMemoryError"
    return text if plain and text else f"{type(error).__name__}: {text}".rstrip(": ")


def record_lost(cache: Path, job: Job, reason: str, notify: Listener) -> None:
    """Record and report that a job failed because its process died."""
    model, dataset = job.model.card.id, job.dataset.card.id
    with contextlib.suppress(OSError):
        failures.record_failure(cache, model, dataset, reason)
    notify(Event("failed", model, dataset, text=reason))


def unreadable(image_ids: Sequence[str], problems: Sequence[tuple[int, str]]) -> str:
    """Return in a line how many images cannot be read, and what is wrong with the first; rows and reasons come in."""
    row, reason = problems[0]
    many = f"{len(problems)} images" if len(problems) > 1 else "1 image"
    return f"{many} cannot be read ({image_ids[row]}: {reason})"


def check_writable(cache: Path) -> None:
    """Make the cache folder; raise `CacheUnwritableError` where nothing can be written to it."""
    # A name that nobody can foresee, made anew: a link of that name could lead anywhere.
    probe = cache / f".writable-{secrets.token_hex(8)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise CacheUnwritableError(f"cannot write to the cache {cache}: {error.strerror or error}") from error
