"""Which images of a shifted set are made from images that the calibrators were fitted on."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyze.annotations import image_keys
from analyze.predictions.summaries import METADATA
from analyze.reading.sources import Source
from cache_schema.format.row_rules import has_image_names

ORIGINAL = "original"
"""Metadata column of a set that is made from another's images: the file name of each image's original."""

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_LAST = 50_000
_ENDINGS = ("JPEG", "jpeg", "jpg", "JPG", "png", "PNG")

_KEPT = 256
_found: dict[tuple[object, ...], NDArray[np.bool_]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class ImageNames:
    """What is known of the images of a set.

    Attributes
    ----------
    ids
        (n,) image ids; None where they were not kept.
    keys
        (n,) int64 hashes of the file names (`image_keys`); None where the ids are there, or no names are known.
    originals
        (n,) file names of the images that these are made from, empty where there is none; None without such a column.
    """

    ids: Sequence[str] | None = None
    keys: NDArray[np.int64] | None = None
    originals: Sequence[str] | None = None

    @classmethod
    def of(cls, source: Source) -> ImageNames:
        """Return the names of a source's images."""
        store = source.store
        if not source.is_summary:
            column = store.metadata.get(ORIGINAL)
            ids = store.image_ids if has_image_names(store.record, store.image_ids) else None
            return cls(ids=ids, originals=None if column is None else [str(name) for name in column])
        names = set(store.columns())
        originals = [str(v) for v in store.column(METADATA + ORIGINAL)] if METADATA + ORIGINAL in names else None
        if "image_id" in names:
            ids = [str(name) for name in store.column("image_id")]
            return cls(ids=ids if has_image_names(store.record, ids) else None, originals=originals)
        keys = np.asarray(store.column("image_key")).astype(np.int64) if "image_key" in names else None
        return cls(keys=keys, originals=originals)

    def hashes(self) -> NDArray[np.int64] | None:
        """Return the hash of each file name, (n,); None where no names are known."""
        return image_keys(self.ids) if self.ids is not None else self.keys

    def numbers(self) -> NDArray[np.int64]:
        """Return the number of the ImageNet validation image that each file name holds, (n,); 0 where it holds none."""
        if self.ids is not None:
            matches = (_NUMBER.search(name) for name in self.ids)
            return np.fromiter((int(match[1]) if match else 0 for match in matches), np.int64, len(self.ids))
        if self.keys is None:
            return np.zeros(0, np.int64)
        known, numbers = _numbers_by_key()
        place = np.minimum(np.searchsorted(known, self.keys), known.size - 1)
        return np.where(known[place] == self.keys, numbers[place], 0)


@functools.cache
def _numbers_by_key() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the hashes of all names of ImageNet validation files in rising order, and the number of each."""
    numbers = np.tile(np.arange(1, _LAST + 1), len(_ENDINGS))
    keys = image_keys([f"ILSVRC2012_val_{i:08d}.{end}" for end in _ENDINGS for i in range(1, _LAST + 1)])
    order = np.argsort(keys)
    return keys[order], numbers[order]


def made_from(names: ImageNames, of: ImageNames, fitted: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """Return which images are made from images that were fitted on.

    An image's original is named by the metadata column ``original``; without that column by the number of an ImageNet
    validation image in its file name (``ILSVRC2012_val_00000293``), as ImageNet-C, Cartoon, Drawing, 3DCC and stylised
    copies keep it. Equal file names alone prove nothing: two unrelated sets may both count from 000001.jpg.

    Parameters
    ----------
    names
        Of the images in question.
    of
        Of the set that was fitted on.
    fitted
        (m,) its rows that were fitted on.
    n
        Images in question.

    Returns
    -------
    ndarray of bool, shape (n,)
        All False where neither says which originals there are.
    """
    none = np.zeros(n, np.bool_)
    if names.originals is not None:
        hashes = of.hashes()
        if hashes is None:
            return none
        given = np.array([bool(name) for name in names.originals], np.bool_)
        return np.asarray(given & np.isin(image_keys(names.originals), hashes[fitted]))
    own, others = names.numbers(), of.numbers()
    if not own.size or not others.size:
        return none
    return np.asarray((own > 0) & np.isin(own, others[fitted]))


def fitted_originals(source: Source, fitted_on: Source, fitted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows of a source are made from rows of another that were fitted on, (n,).

    The answer is kept for all models whose stores have these images: equal digests mean equal images in equal order.
    """
    digests = fitted_on.store.dataset.digest, source.store.dataset.digest
    key = (*digests, fitted_on.is_summary, source.is_summary, np.packbits(fitted).tobytes())
    with _lock:
        if all(digests) and key in _found:
            return _found[key]
    found = made_from(ImageNames.of(source), ImageNames.of(fitted_on), fitted, len(source.store))
    found.flags.writeable = False
    if all(digests):
        with _lock:
            while len(_found) >= _KEPT:
                del _found[next(iter(_found))]
            _found[key] = found
    return found
