"""What each image adds to the AUROC of every detector, summed over the models of a table and kept beside it.

Two detectors are compared by the differences of what the images add (DeLong's test). Scores are not kept: a test of
means over models needs one number an image.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from analyze.evaluate.cells import cells_path
from analyze.intervals.influences import Influence
from cache_schema.format.row_rules import has_image_names
from closerlook_common.user_cache import replaced_whole

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

EFFECTS_VERSION = 1
_write: Callable[..., None] = np.savez

SPREAD = 1e-9
"""Numbers that differ by more are not the same number."""


class Effect(NamedTuple):
    """A sum over models of an AUROC and of what each row of their stores adds to it.

    Attributes
    ----------
    value
        Sum of the AUROCs.
    inside, outside
        (n,) and (m,) float32, of all rows of the ID and of the OOD store; 0 for rows that are not scored.
    images
        Which images, in which order, both sides are of.
    untested
        Why no test is offered, empty where there is one.
    """

    value: float
    inside: NDArray[np.float32]
    outside: NDArray[np.float32]
    images: tuple[str, str]
    untested: str = ""

    def plus(self, other: Effect) -> Effect:
        """Return the sum of two models' effects on the same images."""
        return Effect(
            self.value + other.value,
            self.inside + other.inside,
            self.outside + other.outside,
            self.images,
            self.untested or other.untested,
        )


Effects = dict[str, dict[str, Effect]]
"""Detector -> OOD set -> effect, of one model."""


def effect_of(
    influence: Influence,
    rows: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    images: tuple[str, str],
    untested: str,
) -> Effect:
    """Return influences of scored rows as an effect of all rows of both stores.

    Parameters
    ----------
    influence
        Of the rows that are scored.
    rows
        Which rows of the ID and of the OOD store these are.
    images
        Of `images_of` both stores.
    untested
        Why no test is offered.
    """
    inside, outside = (_of_all_rows(own, chosen) for own, chosen in zip(influence[1:], rows, strict=True))
    return Effect(influence.value, inside, outside, images, untested)


def _of_all_rows(influence: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Write a mean over chosen rows as one over all rows."""
    whole = np.zeros(chosen.size, np.float32)
    whole[chosen] = influence * (chosen.size / influence.size)
    return whole


def images_of(store: PredictionStore) -> str:
    """Return what is equal for stores of the same images in the same order, and for no others."""
    named = has_image_names(store.record, store.image_ids)
    text = "\n".join(store.image_ids) if named else f"rows of {store.digest}"
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Sum:
    """The effects of one detector, summed over models.

    Attributes
    ----------
    keys
        Model -> key of the cell that its numbers are of.
    sets
        OOD set -> effect; empty where the models cannot be summed.
    counted
        Models that have a number on every set.
    """

    keys: dict[str, str]
    sets: dict[str, Effect]
    counted: int

    def add(self, model: str, key: str, effects: Mapping[str, Effect]) -> None:
        """Add a model; one without numbers is known, and not counted."""
        self.keys[model] = key
        if not effects:
            return
        if not self.counted:
            self.sets = dict(effects)
        elif self.sets.keys() != effects.keys() or any(
            self.sets[name].images != e.images for name, e in effects.items()
        ):
            self.sets = {}  # of other images: their effects cannot be added
        else:
            self.sets = {name: self.sets[name].plus(effect) for name, effect in effects.items()}
        self.counted += 1


class KeptEffects:
    """The effects of every detector, by in-distribution set, name and options; saved at the end of a ``with`` block.

    Parameters
    ----------
    output
        The result table beside which they are kept; None keeps them in memory only.
    fresh
        Know nothing of earlier runs.
    """

    def __init__(self, output: Path | None, *, fresh: bool = False) -> None:
        self._path = None if output is None else effects_path(output)
        self._sums: dict[str, _Sum] = {}
        self._changed = False
        self._lock = threading.Lock()
        if not fresh and self._path is not None and self._path.is_file():
            self._sums = _read(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def add(self, name: str, model: str, key: str, effects: Mapping[str, Effect], sets: Iterable[str]) -> None:
        """Add what was computed of a model.

        Parameters
        ----------
        name
            Of `variant_name`.
        model, key
            The model, and the key of its cell. A model whose key has changed takes the sum away: what its former
            numbers added to it is not known any more.
        effects
            By OOD set.
        sets
            All OOD sets: a model counts where it has a number on each.
        """
        with self._lock:
            known = self._sums.get(name)
            if known is None or known.keys.get(model, key) != key:
                known = self._sums[name] = _Sum({}, {}, 0)
            if model not in known.keys:
                known.add(model, key, effects if effects.keys() == set(sets) else {})
            self._changed = True

    def means(self, name: str) -> dict[str, tuple[Effect, Influence]]:
        """Return, for each OOD set, the sum and the mean over the models; empty where nothing is kept."""
        known = self._sums.get(name)
        if known is None or not known.counted:
            return {}
        found = {}
        for dataset, effect in known.sets.items():
            sides = [side.astype(np.float64) / known.counted for side in (effect.inside, effect.outside)]
            found[dataset] = effect, Influence(effect.value / known.counted, *sides)
        return found

    def save(self) -> None:
        """Write what is known, if anything was added."""
        if self._path is None or not self._changed:
            return
        header: list[dict[str, Any]] = []
        arrays: dict[str, NDArray[Any]] = {}
        for name, known in self._sums.items():
            sets = []
            for dataset, effect in known.sets.items():
                places = [len(arrays), len(arrays) + 1]
                arrays |= {str(place): side for place, side in zip(places, effect[1:3], strict=True)}
                sets.append([dataset, effect.value, places, list(effect.images), effect.untested])
            header.append({"name": name, "keys": known.keys, "counted": known.counted, "sets": sets})
        text = json.dumps({"version": EFFECTS_VERSION, "sums": header})
        arrays["header"] = np.frombuffer(text.encode(), np.uint8)
        with replaced_whole(self._path) as part, part.open("wb") as file:
            _write(file, **arrays)


def effects_path(output: Path) -> Path:
    """Return where the effects of a table are kept: a hidden file beside it."""
    return cells_path(output, "ood").with_name(f".{output.stem}.ood.effects.npz")


def variant_name(id_dataset: str, detector: str, options: str) -> str:
    """Return the name under which a detector's effects are kept."""
    return json.dumps([id_dataset, detector, options])


def _read(path: Path) -> dict[str, _Sum]:
    """Read kept effects; a file that is damaged or of another version holds nothing, as if it were not there."""
    try:
        with zipfile.ZipFile(path) as packed:
            if any(member.compress_type != zipfile.ZIP_STORED for member in packed.infolist()):
                return {}
            if sum(member.file_size for member in packed.infolist()) > path.stat().st_size:
                return {}
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["version"] != EFFECTS_VERSION:
                return {}
            return {
                entry["name"]: _Sum(
                    dict(entry["keys"]),
                    {
                        dataset: Effect(value, file[str(first)], file[str(second)], tuple(images), untested)
                        for dataset, value, (first, second), images, untested in entry["sets"]
                    },
                    int(entry["counted"]),
                )
                for entry in header["sums"]
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return {}
