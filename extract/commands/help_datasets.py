"""The grammar of ``datasets.toml``, for ``extract help datasets``."""

from __future__ import annotations

import textwrap
from dataclasses import fields

from extract.datasets.specs import DatasetSpec

_WIDTH = 100

_GRAMMAR = """\
One folder needs no file:

    extract --model-list models.txt --dataset pets=/data/pets
    extract --model-list models.txt --dataset photos=/data/photos:imagenet-1k     # with its classes
    extract --model-list models.txt --dataset photos=/data/photos:names.txt

Nor does a Python function that returns a dataset (items are (image, label), images before any transform); the
file is run, so only the command line can name it:

    extract --model-list models.txt --dataset cifar=python:mine.py:cifar10
    extract --model-list models.txt --dataset cifar=python:mine.py:cifar10:names.txt

More go into datasets.toml, one table a dataset; its name is the dataset's name everywhere. Relative
paths are relative to the file's folder.

    [imagenet-val]                      # a known dataset ('extract datasets' lists them): path is enough
    path = "/data/imagenet/val"

    [pets]                              # class folders, named by class, WordNet id or class index
    path = "/data/pets"

    [photos]                            # numbers as folder names need classes: what do they count?
    path = "/data/photos"
    classes = "imagenet-1k"

    [labelled]                          # a table of paths and labels, .csv .tsv .jsonl .parquet, or a list
    path = "/data/images"               # of files, .txt with 'path label' a line
    manifest = "labels.csv"             # beside this file, in path or beside it
    label_column = "species"            # where it is not called label, class, target ...

    [strangers]                         # an out-of-distribution set: no labels
    path = "/data/strangers"
    role = "ood"
    distance = "far"
    classes = "pets"                    # whose classes its logits are of

    [blurred]                           # the same classes under a shift
    path = "/data/blurred"
    shift_of = "pets"
    classes = "pets"

    [packed]                            # webdataset shards (.tar), Parquet or Arrow files of Hugging Face
    path = "/data/packed"
    split = "validation"

Links below path are followed, also out of it, and that is reported; links that a manifest names must stay
in path unless follow_links = true. What looks like an image and is not read is counted by suffix. Counts that
shards and tables state about themselves are checked.

Keys:
"""


def text() -> str:
    """Return the text, with every key of a table as the documentation of `DatasetSpec` has it."""
    meanings = _meanings()
    lines = []
    for keys, meaning in meanings:
        lines += [f"    {keys}", *textwrap.wrap(meaning, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    return _GRAMMAR + "\n" + "\n".join(lines)


def _meanings() -> list[tuple[str, str]]:
    """Return the keys and their meanings, read from the documentation of `DatasetSpec`."""
    known = {f.name for f in fields(DatasetSpec)} - {"name", "where"}
    found: list[tuple[str, list[str]]] = []
    for line in (DatasetSpec.__doc__ or "").partition("----------\n")[2].splitlines():
        if line.startswith("        "):
            if found:
                found[-1][1].append(line.strip())
        elif line.strip():
            found.append((line.strip(), []))
    return [(keys, " ".join(words).replace("``", "")) for keys, words in found if set(keys.split(", ")) <= known]
