"""Show what a cache holds: models x datasets, each sealed, failed (with the reason) or missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from rich.text import Text

    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import Store

SEALED, OTHER, FAILED, MISSING, NONE = "sealed", "sealed on other images", "failed", "missing", "not applicable"
MARKS = {
    SEALED: ("●", "green"),
    OTHER: ("○", "yellow"),
    FAILED: ("✗", "red"),
    MISSING: ("·", "yellow"),
    NONE: ("–", "dim"),
}
PIPED_WIDTH = 250
"""Columns of what goes to a file or a pipe."""
ROLES = ("id", "shift", "ood", "reference", "pairs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cache", type=Path, metavar="CACHE", help="folder of the stores")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns 1 where something failed."""
    from rich.console import Console

    import cache_schema
    from cache_schema.reading.dataset_states import on_other_images, other_images
    from closerlook_common.console.messages import line, problem
    from closerlook_common.console.terminal import printable, with_name
    from extract.commands.listing import wide_console
    from extract.commands.progress import print_failures

    cache = cache_schema.open_cache(args.cache)
    datasets, states = states_of(cache)
    counts = {state: sum(row.count(state) for row in states.values()) for state in MARKS}
    console = Console(highlight=False, soft_wrap=True)
    stated = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state not in (OTHER, NONE))
    text = line(f"{args.cache}: {counted(len(states), 'model')} x {counted(len(datasets), 'dataset')}: {stated}")
    text.stylize("bold", 0, len(printable(args.cache)))
    console.print(text)
    if states:
        console.print(_matrix(datasets, states, wide_console(PIPED_WIDTH).width))
    elif summaries := cache.stores("summary"):
        of_models = len({store.model.id for store in summaries})
        held = f"stores: {len(summaries):,}, models: {of_models:,}"
        readers = "'analyze' reads them, 'python -m cache_schema show' lists them"
        console.print(line(f"only summaries are here ({held}): {readers}"))
    for name, count, of in more_arrays(cache):
        console.print(line(f"arrays {name}: in {count} of {of}"))
    for dataset, models in on_other_images(_with_rows(cache)).items():
        console.print(problem("other images", "yellow", other_images(dataset, models)))
    sealed = sealed_in(cache)
    failures = [failure for failure in cache.failures() if (failure.model, failure.dataset) not in sealed]
    print_failures(sorted((f.model, f.dataset, f.reason) for f in failures), console)
    refused = cache.refused()
    for store in refused:
        console.print(problem("unusable", "red", with_name(store.path, store.reason)))
    return int(bool(failures or refused))


def sealed_in(cache: Cache) -> set[tuple[str, str]]:
    """Return (model, dataset) of everything that is sealed, also what failed once, or in a cache that was joined."""
    return {(store.model.id, store.dataset.id) for store in _with_rows(cache)}


def more_arrays(cache: Cache) -> list[tuple[str, int, str]]:
    """Return the arrays that some stores hold because they were asked for: name, stores with them, of how many."""
    from cache_schema.format.schema import part_names
    from cache_schema.reading.extending import not_extended

    predictions = not_extended(cache.stores("predictions"))
    heads = not_extended([head for head in cache.stores("head") if head.details["prompt_set"]])
    references = not_extended(cache.stores("reference"))
    kinds = [("texts", "text head", heads, "text_embeddings"), ("unit", "reference", references, "bank_keys")]
    for part, array in part_names("predictions").items():
        kinds.append((part, "prediction store", predictions, array))
    found = []
    for name, what, stores, array in kinds:
        if count := sum(store.has(array) for store in stores):
            found.append((name, count, counted(len(stores), what)))
    return found


def _with_rows(cache: Cache) -> list[Store]:
    """Return the stores that a model's images went into."""
    return [store for kind in ("predictions", "reference") for store in cache.stores(kind)]


def states_of(cache: Cache) -> tuple[list[str], dict[str, list[str]]]:
    """Return the datasets, sorted by role and name, and each model's state on each of them.

    A dataset of images with captions has no store of a model without a text tower: there the state says so.
    """
    from cache_schema.reading.dataset_states import on_other_images

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


def _matrix(datasets: list[str], states: dict[str, list[str]], width: int) -> Text:
    """Return a row a model and two or three characters a dataset, whose numbers are explained below.

    Where that is wider than the terminal, a model's name is on a line of its own; where the marks alone are, they
    take several lines.
    """
    from rich.text import Text

    from closerlook_common.console.terminal import printable

    datasets = [printable(name) for name in datasets]
    states = {printable(model): row for model, row in states.items()}
    cell = len(str(len(datasets))) + 1
    name_width = max(map(len, (*states, "model"))) + 1
    is_split = name_width + cell * len(datasets) > width
    lead = 2 if is_split else name_width
    at_once = max(1, (width - lead) // cell)
    blocks = [range(start, min(start + at_once, len(datasets))) for start in range(0, len(datasets), at_once)]
    out = Text("\n")
    for number, block in enumerate(blocks):
        title = "" if is_split or number else "model"
        out.append(f"{title:<{lead}}" + "".join(f"{i + 1:>{cell}}" for i in block) + "\n", "bold")
    for model, row in states.items():
        out.append(f"{model}\n" if is_split else f"{model:<{lead}}")
        for number, block in enumerate(blocks):
            out.append(" " * lead if is_split or number else "")
            for index in block:
                mark, style = MARKS[row[index]]
                out.append(f"{mark:>{cell}}", style)
            out.append("\n")
    used = [name for name in MARKS if any(name in row for row in states.values())]
    out.append("\n" + "   ".join(f"{MARKS[name][0]} {name}" for name in used) + "\n", "dim")
    for index, dataset in enumerate(datasets, 1):
        out.append(f"{index:>{cell + 1}}  {dataset}\n", "dim")
    return out
