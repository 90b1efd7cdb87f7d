"""What distinguishes the variants of a number (score, calibrator, options ...), in words instead of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from analyze.results.titles import dataset_title, metric_title

SUBSETS = {"near": "near OOD", "far": "far OOD", "all": "all OOD"}


def option_words(options: str) -> str:
    """Return the options of a number as a reader wants them.

    Parameters
    ----------
    options
        Canonical JSON as in the result table; what is none is returned as it is. Options that are off are left out, of
        a list the key alone is shown.

    Examples
    --------
    >>> option_words('{"temperature":1.0}')
    'temperature=1'
    >>> option_words('{"fit":"bank:imagenet-train","full_spectrum":["imagenet-a","imagenet-r"],"half":false,"k":50}')
    'fit=bank:imagenet-train, full spectrum, k=50'
    """
    try:
        found = json.loads(options)
    except ValueError:
        return options
    if not isinstance(found, dict):
        return options
    words = [_option(key.replace("_", " "), value) for key, value in found.items()]
    return ", ".join(word for word in words if word)


def all_option_words(options: str) -> str:
    """Return every option of a number, those that are off and the whole of lists too."""
    try:
        found = json.loads(options)
    except ValueError:
        return options
    if not isinstance(found, dict):
        return options
    values = {key: "+".join(map(str, value)) if isinstance(value, list) else value for key, value in found.items()}
    return ", ".join(f"{key.replace('_', ' ')}={value}" for key, value in values.items())


def _option(key: str, value: object) -> str:
    if value is True or isinstance(value, list):  # of a list of datasets its name says enough
        return key
    if value is False or value is None:
        return ""
    return f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"


def variant_words(columns: Sequence[str], values: Sequence[str], *, is_mean: bool = False) -> list[str]:
    """Return a word for each value that distinguishes a variant.

    Parameters
    ----------
    columns, values
        The columns of the result table that differ, and this variant's values in them.
    is_mean
        The number is one of several datasets together; its subset is then ``near``, ``far`` or ``all``.
    """
    parts = []
    for column, value in zip(columns, values, strict=True):
        if not value:
            continue
        if column == "options":
            value = option_words(value)
        elif column == "subset" and is_mean:
            value = SUBSETS.get(value, value)
        parts.append(value)
    return [word for word in parts if word]


MEAN = "mean"
"""What a number of several datasets together is called in place of a dataset."""


def headed(asked: Sequence[str], parts: Sequence[str], brackets: str) -> str:
    """Return the heading of a column: what was asked for, and in brackets what distinguishes it from others."""
    words = " ".join(word for word in asked if word)
    return f"{words} {brackets[0]}{', '.join(parts)}{brackets[1]}".strip() if parts else words


def column_title(column: str, value: str) -> str:
    """Return a value of a column of the result table as a paper prints it."""
    if column == "dataset":
        return dataset_title(value) or MEAN.capitalize()
    return metric_title(value) if column == "metric" else value
