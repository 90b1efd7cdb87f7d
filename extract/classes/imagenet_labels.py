"""Whether a list of labels is ImageNet's 1,000 classes in their order, in whichever of the usual wordings."""

from __future__ import annotations

from collections.abc import Sequence

from extract.classes.spaces import IMAGENET_1K, class_space

_ENOUGH = 0.9
"""Share of labels that must match: publishers correct a few (``missile``, ``crane bird``, ``maillot``)."""


def are_imagenet_1k(labels: Sequence[str]) -> bool:
    """Return whether labels by index are those of ImageNet's classes, in the order of the sorted WordNet ids.

    Parameters
    ----------
    labels
        Each one a name, a list of synonyms with commas, or a WordNet id.

    Examples
    --------
    >>> are_imagenet_1k(["tench, Tinca tinca", "goldfish, Carassius auratus"])
    False
    """
    space = class_space(IMAGENET_1K)
    if len(labels) != len(space):
        return False
    assert space.wnids is not None
    synonyms = _synonyms()
    matched = sum(
        label.strip() == wnid or bool(_words(label) & (_words(name) | words))
        for label, wnid, name, words in zip(labels, space.wnids, space.names, synonyms, strict=True)
    )
    return matched >= _ENOUGH * len(space)


def _words(label: str) -> set[str]:
    return {part.strip().casefold().replace("_", " ") for part in label.split(",")}


def _synonyms() -> list[set[str]]:
    """Return the WordNet synonyms of each class, as timm ships them."""
    from timm.data.imagenet_info import ImageNetInfo

    return [_words(text) for text in ImageNetInfo().label_descriptions()]
