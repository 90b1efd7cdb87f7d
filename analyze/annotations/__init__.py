"""What is known of an image besides its label: the visual factors it shows, the set of labels that are right.

Imports nothing else of ``analyze``.
"""

from analyze.annotations.visual_factors import (
    FACTORS,
    STUDY_FACTORS,
    Annotations,
    aligned,
    image_key,
    image_keys,
    of_metadata,
    read_annotations,
)

__all__ = [
    "FACTORS",
    "STUDY_FACTORS",
    "Annotations",
    "aligned",
    "image_key",
    "image_keys",
    "of_metadata",
    "read_annotations",
]
