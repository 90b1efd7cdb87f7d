"""Which classes compete on a shifted set: its own subset or super-classes, unless the options say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analyze.reading.views import ClassView
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard


def class_view(card: DatasetCard, n_columns: int, settings: Settings) -> ClassView:
    """Return the view of a dataset's logits that the options ask for.

    Parameters
    ----------
    card
        Its card. The subset of an in-distribution set is never lifted: what is fitted there is fitted on it.
    n_columns
        Columns of the logits.
    settings
        ``[classes] masks`` lifts the subsets of shifted sets, ``map_rule`` replaces the cards' rule of super-classes.
    """
    options = settings["classes"]
    if card.role == "shift" and card.class_map is not None and options["map_rule"]:
        return ClassView(n_columns, groups=card.class_map, rule=options["map_rule"])
    if card.role == "shift" and card.class_map is None and not options["masks"]:
        return ClassView(n_columns)
    return ClassView.of(card, n_columns)


def competing_classes(card: DatasetCard, settings: Settings) -> int | None:
    """Return how many classes compete on a dataset under the options; None where its card does not say."""
    if card.class_map is not None:
        return len(card.class_map)
    if card.class_mask is not None and (card.role != "shift" or settings["classes"]["masks"]):
        return len(card.class_mask)
    return card.n_classes


def class_options(card: DatasetCard, settings: Settings) -> dict[str, Any]:
    """Return the options that change a dataset's classes and are not the study's default, for its rows."""
    changed = settings.changed("classes")
    names = {"masks": card.class_mask is not None and card.class_map is None, "map_rule": card.class_map is not None}
    return {k: v for k, v in changed.items() if card.role == "shift" and names[k]}


def other_classes(card: DatasetCard, made: Mapping[str, Any] | None, settings: Settings) -> str:
    """Return why a summary that was made under other options says nothing; empty where it does."""
    wanted = class_options(card, settings)
    found = dict(made or {})
    if wanted == found:
        return ""
    return (
        f"the summary of {card.id} was made with [classes] {found or 'as the study has them'},"
        f" not {wanted or 'as the study has them'}: summarize again"
    )
