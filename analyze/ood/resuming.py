"""Detector rows of earlier runs that no longer hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.fits.detectors import CODE
from analyze.ood.inputs import OodOptions, ood_sets, spectrum_sets
from analyze.settings import canonical
from cache_schema.writing.dataset_roles import require_roles
from closerlook_common.plugins import digest_of

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


def outdated(table: pl.DataFrame, cache: Cache, model: str, options: OodOptions) -> pl.DataFrame:
    """Return a model's rows that rest on roles which the datasets no longer have.

    Also those of a plug-in's detector whose code has changed. Rows of sets that are not out-of-distribution any more,
    means over sets of a distance that none has, and full-spectrum rows over other shifted sets. Sets that were named on
    the command line are not judged by their role.
    """
    own = table.filter(pl.col("command") == "ood", pl.col("model") == model, pl.col("id_dataset") == options.id_dataset)
    changed = own.filter(
        pl.struct("score", "options").map_elements(lambda row: _is_of_other_code(**row), return_dtype=pl.Boolean)
    )
    if options.near or options.far:
        return changed
    roles = {name: facts.role for name, facts in require_roles(cache).items()}
    gone = [name for name, role in roles.items() if role != "ood"]
    distances = set(ood_sets(cache, model, options).values())
    empty = [subset for subset in ("near", "far") if subset not in distances]
    found = pl.col("dataset").is_in(gone) | ((pl.col("dataset") == "") & pl.col("subset").is_in(empty))
    if options.full_spectrum is None:
        shifted = list(spectrum_sets(cache, model, options))
        others = [
            text
            for text in own["options"].unique()
            if text and json.loads(text).get("full_spectrum", shifted) != shifted
        ]
        found |= pl.col("options").is_in(others)
    return pl.concat([own.filter(found), changed]).unique(maintain_order=True)


def _is_of_other_code(score: str, options: str) -> bool:
    """Return whether a row is of a plug-in's detector that is loaded now, and has another digest than then."""
    now = digest_of("detectors", score)
    return bool(now) and (json.loads(options) if options else {}).get(CODE) != now


def plain_options_of(text: str) -> str:
    """Return the options of a row without what it was fitted on and the shifted sets that joined the ID set."""
    return _without_place(json.loads(text) if text else {})


def _without_place(given: Mapping[str, Any]) -> str:
    return canonical({k: v for k, v in given.items() if k not in ("fit", "full_spectrum")})
