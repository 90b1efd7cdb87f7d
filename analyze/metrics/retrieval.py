"""Image-text retrieval: embeddings and which caption is of which image in, recall at k both ways out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from analyze.metrics._arrays import as_array, numbers
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError

BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class RetrievalRecall:
    """Recall at several k, each in [0, 1], higher is better.

    Attributes
    ----------
    image_to_text
        k -> share of images with at least one of their captions among the k most similar texts.
    text_to_image
        k -> share of captions whose image is among the k most similar images.
    n_images, n_texts
        Queries each way; images without a caption are not queries, but are among the answers.
    image_ranks, text_ranks
        (n_images,) and (n_texts,) place of the first right answer of each query, 1 for the best; among equal
        similarities its mean over random orders, so that it need not be whole. Lower is better.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    n_images: int
    n_texts: int
    image_ranks: NDArray[np.float64] = field(compare=False, repr=False)
    text_ranks: NDArray[np.float64] = field(compare=False, repr=False)

    @property
    def mean_ranks(self) -> tuple[float, float]:
        """Mean of the ranks, image to text and text to image, at least 1: a few lost queries decide it."""
        return float(self.image_ranks.mean()), float(self.text_ranks.mean())

    @property
    def median_ranks(self) -> tuple[float, float]:
        """Median of the ranks, image to text and text to image, at least 1."""
        return float(np.median(self.image_ranks)), float(np.median(self.text_ranks))


def retrieval_recall(
    image_embeddings: NDArray[np.floating],
    text_embeddings: NDArray[np.floating],
    image_index: NDArray[np.integer],
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> RetrievalRecall:
    """Return recall at k by cosine similarity, exactly: every image is compared with every text.

    Parameters
    ----------
    image_embeddings : ndarray of shape (n, D)
        Need not be normalised.
    text_embeddings : ndarray of shape (m, D)
        Likewise.
    image_index : ndarray of shape (m,)
        The image that each text is of.
    ks
        Positive.

    Returns
    -------
    RetrievalRecall

    Raises
    ------
    UserError
        Shapes do not go together, an index is out of range, or an embedding holds NaN or infinity.

    Notes
    -----
    Ties (equal captions of different images, say) are shared: the value is what random
    tie-breaking gives on average. Memory is bounded by blocks of queries, whatever n and m are.

    References
    ----------
    Karpathy & Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015.
    """
    images, texts = _unit("image_embeddings", image_embeddings), _unit("text_embeddings", text_embeddings)
    index = as_array("image_index", image_index)
    if images.shape[1] != texts.shape[1]:
        raise UserError(f"image embeddings are {images.shape[1]} wide, text embeddings {texts.shape[1]}")
    if index.shape != (len(texts),) or index.dtype.kind not in "iu":
        raise UserError(f"image_index must be {len(texts)} integers, one a text, not {index.dtype} of {index.shape}")
    if len(index) and (index.min() < 0 or index.max() >= len(images)):
        raise UserError(f"image_index must lie between 0 and {len(images) - 1}")
    if not len(texts) or not ks or min(ks) < 1:
        raise UserError("retrieval needs at least one text and positive k")
    captioned = np.unique(index)
    into_text, image_ranks = _recall(images[captioned], captioned, texts, index, ks)
    into_image, text_ranks = _recall(texts, index, images, np.arange(len(images)), ks)
    return RetrievalRecall(into_text, into_image, len(captioned), len(texts), image_ranks, text_ranks)


def _recall(
    queries: NDArray[np.float32],
    query_image: NDArray[np.integer],
    answers: NDArray[np.float32],
    answer_image: NDArray[np.integer],
    ks: Sequence[int],
) -> tuple[dict[int, float], NDArray[np.float64]]:
    """Return k -> mean recall, and the rank of each query; an answer is right where it is of the query's image."""
    # Equal answers must tie exactly, and a matrix product may give equal columns different last bits.
    unique, place = np.unique(answers, axis=0, return_inverse=True)
    place = place.reshape(-1)
    totals = dict.fromkeys(ks, 0.0)
    ranks = np.empty(len(queries))
    rows = max(1, BLOCK_BYTES // (4 * len(answers)))
    for start in range(0, len(queries), rows):
        similarity = (queries[start : start + rows] @ unique.T)[:, place]
        right = answer_image[None, :] == query_image[start : start + rows, None]
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        above = ((similarity > best) & ~right).sum(axis=1)
        level = similarity == best
        tied_wrong, tied_right = (level & ~right).sum(axis=1), (level & right).sum(axis=1)
        # The first of r right ones among w + r in random order is at place (w + r + 1) / (r + 1) on average.
        ranks[start : start + rows] = above + (tied_wrong + tied_right + 1) / (tied_right + 1)
        for k in ks:
            totals[k] += float(_hit(above, tied_wrong, tied_right, k).sum())
    return {k: total / len(queries) for k, total in totals.items()}, ranks


def _hit(above: NDArray[np.int64], wrong: NDArray[np.int64], right: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return the chance that random tie-breaking puts a right answer among the first k, (b,).

    ``above`` wrong answers are certainly ahead; then come ``wrong + right`` tied ones in random order.
    """
    places = np.clip(k - above, 0, wrong + right)
    # No right one among the first ``places``: C(wrong, places) / C(wrong + right, places).
    some = places <= wrong
    drawn = np.where(some, places, 0)
    miss = np.exp(
        gammaln(wrong + 1)
        - gammaln(wrong - drawn + 1)
        - gammaln(wrong + right + 1)
        + gammaln(wrong + right - drawn + 1)
    )
    chance: NDArray[np.float64] = np.where(some, np.where(places == 0, 0.0, 1.0 - miss), 1.0)
    return chance


def _unit(name: str, values: NDArray[np.floating]) -> NDArray[np.float32]:
    array = numbers(name, values, 2).astype(np.float32)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise UserError(f"{name}: row {int(np.flatnonzero(bad)[0])} holds NaN or infinity")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    unit: NDArray[np.float32] = array / np.maximum(norms, np.float32(1e-12))
    return unit


ROWS = (
    Metric(
        "image_to_text_recall@{}", "Image-to-text recall@{}", "higher", "fraction",
        evidence=Evidence(
            "share of images with one of their captions among the N most similar",
            "Karpathy and Fei-Fei, CVPR 2015", "all pairs, sorted", "test_retrieval.py::test_equals_brute_force",
        ),
    ),
    Metric(
        "text_to_image_recall@{}", "Text-to-image recall@{}", "higher", "fraction",
        evidence=Evidence(
            "share of captions with their image among the N most similar", "Karpathy and Fei-Fei, CVPR 2015",
            "all pairs, sorted", "test_retrieval.py::test_equals_brute_force",
        ),
    ),
    Metric(
        "image_to_text_mean_rank", "Image-to-text mean rank", "lower", low=1.0, high=INFINITY,
        evidence=Evidence(
            "mean over images, of the rank of their first caption", "Karpathy and Fei-Fei, CVPR 2015",
            "sorted similarities", "test_retrieval.py::test_ranks_equal_those_of_sorting",
        ),
    ),
    Metric(
        "text_to_image_mean_rank", "Text-to-image mean rank", "lower", low=1.0, high=INFINITY,
        evidence=Evidence(
            "mean over captions, of the rank of their image", "Karpathy and Fei-Fei, CVPR 2015",
            "sorted similarities", "test_retrieval.py::test_ranks_equal_those_of_sorting",
        ),
    ),
    Metric(
        "image_to_text_median_rank", "Image-to-text median rank", "lower", low=1.0, high=INFINITY,
        evidence=Evidence(
            "median over images, of the rank of their first caption", "Karpathy and Fei-Fei, CVPR 2015",
            "sorted similarities", "test_retrieval.py::test_ranks_equal_those_of_sorting",
        ),
    ),
    Metric(
        "text_to_image_median_rank", "Text-to-image median rank", "lower", low=1.0, high=INFINITY,
        evidence=Evidence(
            "median over captions, of the rank of their image", "Karpathy and Fei-Fei, CVPR 2015",
            "sorted similarities", "test_retrieval.py::test_ranks_equal_those_of_sorting",
        ),
    ),
)  # fmt: skip
