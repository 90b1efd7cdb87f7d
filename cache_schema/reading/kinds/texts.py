"""Read texts: embeddings of captions, for retrieval."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_schema.reading.store import Store
from closerlook_common.errors import CorruptStoreError


class TextStore(Store):
    """Embeddings of captions, for retrieval."""

    @cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """(m, D) float32, unit norm."""
        return self.read("embeddings")

    @cached_property
    def text(self) -> list[str]:
        """The m captions."""
        return self.read_text("text")

    @cached_property
    def image_index(self) -> NDArray[np.int32]:
        """(m,) int32: row of the image in the dataset's order."""
        index: NDArray[np.int32] = self.read("image_index")
        limit = self.dataset.n_images
        if (index < 0).any() or (limit is not None and (index >= limit).any()):
            raise CorruptStoreError(f"{self.title}: image_index holds rows that the dataset does not have")
        return index
