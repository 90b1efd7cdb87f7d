"""Comparisons of models, and the file that keeps them for later runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from analyze.evaluate.cells import SAVE_SECONDS
from analyze.evaluate.pairing import BY_NAME
from analyze.intervals import PairedDifference
from closerlook_common.errors import UserError
from closerlook_common.user_cache import replaced_whole

MATRICES = ("agreement", "consistency", "consistency_low", "consistency_high")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models on one dataset, over the images that all of them could read.

    Attributes
    ----------
    dataset, n
        Its id and the images compared.
    models
        Ids, in the order asked for.
    values
        Metric -> number of each model on these images.
    differences
        Metric -> first less second model, with interval and p-value; empty for more than two.
    agreement, consistency
        (models, models): share of equal predictions; Cohen's kappa of being right.
    consistency_low, consistency_high
        (models, models): its interval; NaN where there is none.
    ensemble
        Metric -> number of the mean probability; empty where the big stores are not at hand.
    no_ensemble
        Why there is none.
    diversity
        Metric -> mean over the images, and the ends of its interval (NaN where there is none); empty unless asked for.
    paired_by
        ``name`` (of the image), or ``row`` where a store holds no names and ``pair_by_row`` was asked for.
    """

    dataset: str
    n: int
    models: tuple[str, ...]
    values: dict[str, list[float]]
    differences: dict[str, PairedDifference]
    agreement: NDArray[np.float64]
    consistency: NDArray[np.float64]
    consistency_low: NDArray[np.float64]
    consistency_high: NDArray[np.float64]
    ensemble: dict[str, float]
    no_ensemble: str = ""
    diversity: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    paired_by: str = BY_NAME


class KeptComparisons:
    """Comparisons by cell (see ``engine.Kept``), saved now and then and at the end, also when a run is interrupted.

    Parameters
    ----------
    output
        File that the numbers are written to; comparisons go to a hidden file next to it. None keeps them in memory.
    fresh
        Know nothing of earlier runs.

    Raises
    ------
    UserError
        Where the hidden file cannot be read.
    """

    def __init__(self, output: Path | None = None, *, fresh: bool = False) -> None:
        self._path = None if output is None else output.with_name(f".{output.name}.cells.json")
        self._found: dict[str, Comparison] = {}
        self._lock = threading.Lock()
        self._saved = time.monotonic()
        if self._path is not None and self._path.is_file() and not fresh:
            try:
                kept = json.loads(self._path.read_text())
                self._found = {str(key): _comparison(fields) for key, fields in kept.items()}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(
                    f"{self._path} cannot be read ({error}); delete it, everything is then computed anew"
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Comparison:
        return self._found[key]

    def keys(self) -> frozenset[str]:
        """Return the keys of all cells that are known."""
        return frozenset(self._found)

    def put(self, key: str, results: Sequence[Comparison], lasting: bool = True) -> None:
        """Keep the comparison of a cell."""
        del lasting  # an error is no comparison
        (found,) = results
        with self._lock:
            self._found[key] = found
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()

    def save(self) -> None:
        """Write all of them at once."""
        self._saved = time.monotonic()
        if self._path is None or not self._found:
            return
        text = json.dumps({key: _fields(found) for key, found in self._found.items()})
        with replaced_whole(self._path) as part:
            part.write_text(text)


def _fields(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON holds it; NaN stays NaN."""
    fields = dict(vars(found))
    fields |= {name: fields[name].tolist() for name in MATRICES}
    return fields | {"differences": {name: asdict(each) for name, each in found.differences.items()}}


def _comparison(fields: dict[str, Any]) -> Comparison:
    """Return the comparison of `_fields`, equal to the last bit."""
    changed: dict[str, Any] = {name: np.asarray(fields[name], np.float64) for name in MATRICES}
    changed["models"] = tuple(fields["models"])
    changed["differences"] = {name: PairedDifference(**each) for name, each in fields["differences"].items()}
    changed["diversity"] = {name: tuple(each) for name, each in fields["diversity"].items()}
    return Comparison(**fields | changed)
