"""What a cache holds: models x datasets, each sealed (perhaps on other images), failed (and why) or missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from cache_schema.cache import Cache
    from cache_schema.store import Store

SEALED, OTHER, FAILED, MISSING, NONE = "sealed", "sealed on other images", "failed", "missing", "not applicable"
MARKS = {
    SEALED: ("●", "green"),
    OTHER: ("○", "yellow"),
    FAILED: ("✗", "red"),
    MISSING: ("·", "yellow"),
    NONE: ("–", "dim"),
}
ROLES = ("id", "shift", "ood", "reference", "pairs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cache", type=Path, metavar="CACHE", help="folder of the stores")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns 1 where something failed."""
    from rich.console import Console
    from rich.markup import escape

    import cache_schema
    from cache_schema.console.terminal import told_of
    from cache_schema.dataset_states import on_other_images, other_images
    from extract.commands.progress import print_failures

    cache = cache_schema.open_cache(args.cache)
    datasets, states = states_of(cache)
    counts = {state: sum(row.count(state) for row in states.values()) for state in MARKS}
    console = Console(highlight=False, soft_wrap=True)
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state not in (OTHER, NONE))
    console.print(f"[bold]{escape(str(args.cache))}[/]: {len(states)} models x {len(datasets)} datasets: {told}")
    if states:
        console.print(_matrix(datasets, states))
    elif summaries := cache.stores("summary"):
        of_models = len({store.model.id for store in summaries})
        console.print(
            f"only summaries are here (stores: {len(summaries):,}, models: {of_models:,}): 'analyze' reads them,"
            " 'python -m cache_schema show' lists them"
        )
    for dataset, models in on_other_images(_with_rows(cache)).items():
        console.print(f"[yellow]other images[/] {escape(other_images(dataset, models))}")
    sealed = sealed_in(cache)
    failures = [failure for failure in cache.failures() if (failure.model, failure.dataset) not in sealed]
    print_failures(sorted((f.model, f.dataset, f.reason) for f in failures), console)
    refused = cache.refused()
    for store in refused:
        console.print(f"[red]unusable[/] {escape(told_of(store.path, store.reason))}")
    return int(bool(failures or refused))


def sealed_in(cache: Cache) -> set[tuple[str, str]]:
    """Return (model, dataset) of everything that is sealed, also what failed once, or in a cache that was joined."""
    return {(store.model.id, store.dataset.id) for store in _with_rows(cache)}


def _with_rows(cache: Cache) -> list[Store]:
    """Return the stores that a model's images went into."""
    return [store for kind in ("predictions", "reference") for store in cache.stores(kind)]


def states_of(cache: Cache) -> tuple[list[str], dict[str, list[str]]]:
    """Return the datasets, sorted by role and name, and each model's state on each of them.

    A dataset of images with captions has no store of a model without a text tower: there the state says so.
    """
    from cache_schema.dataset_states import on_other_images

    stores = _with_rows(cache)
    sealed = sealed_in(cache)
    other = {(model, dataset) for dataset, models in on_other_images(stores).items() for model in models}
    failed = {(failure.model, failure.dataset) for failure in cache.failures()} - sealed
    roles = {store.dataset.id: store.dataset.role for store in stores}
    zero_shot = {store.model.id: store.model.head_kind == "zero-shot" for store in stores}
    names = {dataset for _, dataset in sealed | failed if dataset}
    datasets = sorted(names, key=lambda name: (_rank(roles.get(name, "")), name))

    def state(model: str, dataset: str) -> str:
        if (model, dataset) in sealed:
            return OTHER if (model, dataset) in other else SEALED
        if (model, dataset) in failed or (model, "") in failed:
            return FAILED
        without_text = model in zero_shot and not zero_shot[model]
        return NONE if roles.get(dataset) == "pairs" and without_text else MISSING

    models = sorted({model for model, _ in sealed | failed})
    return datasets, {model: [state(model, dataset) for dataset in datasets] for model in models}


def _rank(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _matrix(datasets: list[str], states: dict[str, list[str]]) -> Text:
    """Return a row a model and two or three characters a dataset, whose numbers are explained below."""
    from rich.text import Text

    width = max(map(len, (*states, "model"))) + 1
    cell = len(str(len(datasets))) + 1
    out = Text()
    out.append(f"\n{'model':<{width}}" + "".join(f"{i:>{cell}}" for i in range(1, len(datasets) + 1)) + "\n", "bold")
    for model, row in states.items():
        out.append(f"{model:<{width}}")
        for name in row:
            mark, style = MARKS[name]
            out.append(f"{mark:>{cell}}", style)
        out.append("\n")
    used = [name for name in MARKS if any(name in row for row in states.values())]
    out.append("\n" + "   ".join(f"{MARKS[name][0]} {name}" for name in used) + "\n", "dim")
    for index, dataset in enumerate(datasets, 1):
        out.append(f"{index:>{cell + 1}}  {dataset}\n", "dim")
    return out
