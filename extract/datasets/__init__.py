"""Datasets: folders, manifests and named recipes become an ordered list of labelled images.

Imports classes; a model is no concern of theirs.
"""

from extract.datasets.base import Dataset, ImageSource
from extract.datasets.images import UnreadableImage, decode_rgb
from extract.datasets.resolving import resolve
from extract.datasets.specs import DatasetSpec, read_datasets_toml, spec_from_table, write_datasets_toml

__all__ = [
    "Dataset",
    "DatasetSpec",
    "ImageSource",
    "UnreadableImage",
    "decode_rgb",
    "read_datasets_toml",
    "resolve",
    "spec_from_table",
    "write_datasets_toml",
]
