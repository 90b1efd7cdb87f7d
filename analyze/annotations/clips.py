"""Frames of videos: which clip and which anchor frame each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANCHOR, IS_ANCHOR = "anchor", "is_anchor"
"""Metadata columns of a video set: the name of the anchor frame in whose neighbourhood a frame lies, and whether it is
that frame itself. Both are needed: a column ``anchor`` alone may be anything."""


def has_clips(metadata: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether a dataset consists of frames of videos."""
    return ANCHOR in metadata and IS_ANCHOR in metadata


def clips_of(metadata: Mapping[str, NDArray[Any]]) -> NDArray[np.int64] | None:
    """Return the clip of each row as a number, (n,); None where the dataset is not a set of frames.

    A clip is the folder of the anchor frame (``val/VIDEO/000442.JPEG``), or the anchor frame itself where it has no
    folder. Frames of one clip are not independent, so intervals are of clips.
    """
    if not has_clips(metadata):
        return None
    names = [str(anchor).rpartition("/")[0] or str(anchor) for anchor in metadata[ANCHOR].tolist()]
    return np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
