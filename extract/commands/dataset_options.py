"""The datasets of a run: from ``--dataset``, ``--datasets``, ``--reference`` or a study to lists of images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from closerlook_common.console.argument_types import parse_whole
from closerlook_common.console.messages import line, problem
from closerlook_common.console.terminal import escaped
from closerlook_common.console.waiting import WaitNotice
from closerlook_common.errors import UserError, nearest
from extract.classes.spaces import BUILT_IN
from extract.commands.request import RunRequest
from extract.datasets import DatasetSpec, read_datasets_toml, spec_from_table
from extract.datasets.base import Dataset
from extract.datasets.spaces import FOLDERS
from extract.studies.study import Study

DEFAULT_DATASETS = Path("datasets.toml")


def study_datasets(study: Study, request: RunRequest, console: Console) -> list[DatasetSpec]:
    """Return the datasets of a study; those that its file of datasets does not name are reported."""
    specs, missing = study.datasets()
    if missing:
        console.print(line(f"left out, {study.datasets_file} does not name them: {', '.join(missing)}"), soft_wrap=True)
    return _with_references(specs, request.reference)


def dataset_specs(request: RunRequest, console: Console) -> list[DatasetSpec]:
    """Return the datasets that the command line names; without any, those of ``datasets.toml`` here.

    Raises
    ------
    UserError
        None is named, two have one name, or an option cannot be read.
    """
    specs = [*request.specs, *(_spec_of(text) for text in request.dataset)]
    toml = request.datasets
    if toml is None and not specs:
        if not DEFAULT_DATASETS.is_file():
            raise UserError(
                "no dataset is named: give --dataset NAME=PATH or --datasets FILE, or write a datasets.toml here"
                " ('extract help datasets' describes it)"
            )
        toml = DEFAULT_DATASETS
        console.print(line(f"no dataset is named: taking {toml}"), soft_wrap=True)
    if toml is not None:
        specs += read_datasets_toml(toml)
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two datasets are called {name!r}: give one another name")
    return _with_references(specs, request.reference)


def _spec_of(text: str) -> DatasetSpec:
    """Return the spec of ``NAME=PATH`` or ``NAME=PATH:CLASSES``; a path may contain colons itself.

    What follows the last colon is taken for classes if it can be some; a slash at the end makes it a path.

    Raises
    ------
    UserError
        It is neither, or both readings lead to a folder.
    """
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(
            "--dataset takes NAME=PATH or NAME=PATH:CLASSES, as in --dataset pets=/data/pets or"
            f" --dataset photos=/data/photos:imagenet-1k; not {text!r}"
        )
    if path.startswith("python:"):
        return _python_spec(name, path.removeprefix("python:"))
    table = {"path": path}
    folder, _, classes = path.rpartition(":")
    known = classes in (*BUILT_IN, FOLDERS) or classes.endswith(".txt")
    as_path, as_classes = Path(path).expanduser().is_dir(), bool(folder) and Path(folder).expanduser().is_dir()
    if known and as_path and as_classes:
        raise UserError(
            f"--dataset {text}: there are a folder {path} and a folder {folder}; --dataset {name}={path}/ takes the"
            f" first, classes = {classes!r} in a table of datasets.toml the second"
        )
    if folder and not as_path and (known or (as_classes and "/" not in classes)):
        table = {"path": folder, "classes": classes}
    return spec_from_table(name, table, Path.cwd(), where=f"--dataset {name}={table['path']}")


def _python_spec(name: str, text: str) -> DatasetSpec:
    """Return the spec of ``NAME=python:FILE.py:function`` or ``NAME=python:FILE.py:function:CLASSES``."""
    from extract.datasets.python_data import reference

    where = f"--dataset {name}=python:{text}"
    place, _, classes = text.rpartition(":")
    if not (classes in BUILT_IN or classes.endswith(".txt")):
        place, classes = text, ""
    return DatasetSpec(name=name, path=Path(), classes=classes, where=where, data=reference(place, where))


def _with_references(specs: list[DatasetSpec], references: Sequence[str]) -> list[DatasetSpec]:
    """Make the named datasets references: streamed, their statistics kept instead of their rows."""
    by_name = {spec.name: spec for spec in specs}
    for text in references:
        name, _, option = text.partition(":")
        if name not in by_name:
            raise UserError(f"--reference {name}: no dataset of that name{nearest(name, by_name)}")
        key, equals, value = option.partition("=")
        if option and not (key == "per_class" and equals and (parse_whole(value) or 0) > 0):
            raise UserError(f"--reference takes NAME or NAME:per_class=N, not {text!r}")
        per_class = int(value) if option else by_name[name].per_class
        by_name[name] = replace(by_name[name], role="reference", per_class=per_class)
    return list(by_name.values())


def resolve_datasets(
    specs: Sequence[DatasetSpec], failed: list[tuple[str, str, str]], console: Console
) -> list[Dataset]:
    """List the images of every dataset and print what was left out or looks wrong; failures go into ``failed``."""
    from extract.datasets.borrowing import resolve_all

    with _listing_shown(console) as show:
        datasets, reasons = resolve_all(specs, show)
    for dataset in datasets:
        for remark in dataset.problems:
            console.print(problem("note", "yellow", f"{dataset.card.id}: {remark}"), soft_wrap=True)
    failed += [("", name, str(reason)) for name, reason in reasons.items()]
    return datasets


@contextlib.contextmanager
def _listing_shown(console: Console) -> Iterator[Callable[[str], None]]:
    """Show which dataset is being listed: at once on a terminal, elsewhere a line for one that takes its time."""
    if console.is_terminal:
        with console.status("listing") as status:
            yield lambda name: status.update(escaped(f"listing the images of {name}"))
        return
    notice = WaitNotice(lambda text: console.print(line(text), soft_wrap=True))
    try:
        yield lambda name: notice.begin(f"listing the images of {name}")
    finally:
        notice.end()
