"""The choices of one extraction, as the command line or a study file gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from closerlook_common.console.argument_types import parse_whole
from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run; what to run are the models and datasets.

    Attributes
    ----------
    cache
        Folder of the stores.
    backend
        ``zarr`` or ``hdf5``.
    device
        ``cpu``, ``cuda`` or ``cuda:i``; resolved, never ``auto``.
    precision
        ``fp32``, ``bf16`` or ``fp16``; resolved.
    batch_size
        Rows of a decoded batch; a model that runs out of memory takes it in halves.
    workers
        Decoding processes; 0 decodes in the main process.
    prompts
        Prompt sets of zero-shot models; stored logits are of the first, heads are kept of all.
    words
        Lists of words that zero-shot models embed, each with its prompt set.
    features_dtype
        ``float16`` or ``float32``.
    arrays
        What to store besides, names of ``extract.planning.arrays.ARRAYS``.
    pixel_cache
        Folder of decoded pixels, or None.
    pixel_cache_bytes
        What that folder may hold.
    compile
        Compile the models' forward passes.
    resident
        Largest number of models on the device at once; 0 lets memory decide.
    """

    cache: Path
    backend: str = "zarr"
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 32
    workers: int = 0
    prompts: tuple[PromptSet, ...] = field(default_factory=tuple)
    words: tuple[tuple[ClassSpace, PromptSet], ...] = ()
    features_dtype: str = "float16"
    arrays: tuple[str, ...] = ()
    pixel_cache: Path | None = None
    pixel_cache_bytes: int = 20 << 30
    compile: bool = False
    resident: int = 0


def shard_of(text: str) -> tuple[int, int]:
    """Parse ``i/n`` with 0 <= i < n.

    Examples
    --------
    >>> shard_of("3/8")
    (3, 8)
    """
    first, _, second = text.partition("/")
    index, count = parse_whole(first), parse_whole(second)
    if index is None or count is None or not 0 <= index < count:
        raise UserError(f"`shard` takes i/n with 0 <= i < n, as in 0/4 ... 3/4; not {text[:40]!r}")
    return index, count
