"""``datasets.toml``: one table a dataset, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cache_schema.format.records import ROLES
from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import parse_toml, read_text_file
from extract.classes.spaces import ClassSpace
from extract.datasets.labels import LABEL_KINDS

READERS = ("auto", "files", "webdataset", "huggingface")
MAP_RULES = ("max", "restrict", "mean")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a table of ``datasets.toml`` says about a dataset; nothing is read from disk yet.

    Attributes
    ----------
    name
        The table's name: the dataset's id in every table and figure.
    path
        The folder, relative paths being relative to the file's folder.
    recipe
        A built-in dataset's name (see ``extract datasets``), which sets everything that is not given here. A
        table named like a recipe means it, unless it says ``recipe = "none"`` or brings labels, classes or a
        manifest of its own.
    role
        ``id``, ``shift``, ``ood``, ``reference`` or ``pairs``. Default: ``pairs`` with captions, ``shift``
        with ``shift_of``, ``ood`` without labels, else ``id``.
    shift_of
        Name of the in-distribution set that this one is a shift of.
    distance
        ``near`` or ``far``, for OOD sets.
    classes
        ``imagenet-1k``; ``folders`` (the folder names, sorted); a list of names; a text file with one name a line; or
        the name of another dataset of the run, whose classes they are. Default: ``imagenet-1k`` where all folder names
        are its WordNet ids or its names, or are the numbers 0 to 999; else the folder names.
    class_space
        Name of the class space. Default: derived from the class names, equal for equal lists.
    labels
        How folder names or the manifest's labels are read: ``auto``, ``wnid``, ``index``, ``name``, ``none``.
    class_mask
        Classes kept before the softmax, by index, WordNet id or name.
    class_map, class_map_rule
        Members of each super-class, and how they make its score (``max``, ``restrict``, ``mean``).
    manifest
        CSV, TSV, JSON-lines or Parquet table with ``path`` and perhaps ``label``, whose other columns become metadata;
        or a ``.txt`` list of files, ``path label`` a line. Looked for beside ``datasets.toml``, then in ``path``, then
        beside it.
    path_column, label_column
        The columns of paths and labels, where they have other names than the usual ones. In shards ``label_column`` is
        the part of a sample, or the key of its JSON part.
    captions
        The manifest's column of captions.
    questions
        Table of questions with options about the images, for models that answer questions: `read_questions` in
        ``extract/datasets/questions.py`` says what it holds. Looked for as the manifest.
    per_class
        Take at most so many images of each class, chosen by the hash of ``seed`` and path. A dataset with
        ``role = "reference"`` is taken whole; there it is the number of images a class whose features are
        kept.
    seed
        Of that choice.
    follow_links
        Allow links in a manifest's paths that lead out of the folder.
    allow_count_mismatch
        Go on although a recipe's expected counts, or those that shards and tables state, are not met.
    border_crop, already_cropped
        Pixels cut off each side of an image; and the side of images that are stored as the finished crop, which models
        of that input size take as they are.
    reader, split
        ``auto``: files where there are any, else what the folder holds; ``files``; ``webdataset`` (tar shards);
        ``huggingface`` (Parquet files of a hub repository, Arrow files of ``datasets``). And the split in it.
    licence
        Of the images.
    where
        Names the file and table for messages.
    data
        A Python object with the images, or the `Reference` to a function that returns one; ``path`` is not read then.
        Never from ``datasets.toml``: only the command line and Python may name code.
    """

    name: str
    path: Path
    recipe: str = ""
    role: str = ""
    shift_of: str = ""
    distance: str = ""
    classes: str | tuple[str, ...] | ClassSpace = ""
    class_space: str = ""
    labels: str = "auto"
    class_mask: tuple[str | int, ...] | None = None
    class_map: tuple[tuple[str | int, ...], ...] | None = None
    class_map_rule: str = ""
    manifest: Path | None = None
    path_column: str = ""
    label_column: str = ""
    captions: str = ""
    questions: Path | None = None
    per_class: int | None = None
    seed: int = 0
    follow_links: bool = False
    allow_count_mismatch: bool = False
    border_crop: int | None = None
    already_cropped: int | None = None
    reader: str = "auto"
    split: str = ""
    licence: str = ""
    where: str = ""
    data: Any = None

    def __post_init__(self) -> None:
        at = self.where or f"dataset {self.name}"
        if not self.name.strip():
            raise UserError("a dataset needs a name")
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value and value not in allowed:
                raise UserError(f"{at}: {key} = {value!r} is not one of {', '.join(allowed)}{nearest(value, allowed)}")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"{at}: per_class = {self.per_class} leaves no image")
        if self.captions and self.manifest is None and not self.recipe:
            raise UserError(f"{at}: captions names a column of a manifest; set manifest = as well")
        if self.questions is not None:
            unfit = [key for key in _NOT_OF_QUESTIONS if getattr(self, key) not in ("", None)]
            unfit += [f'role = "{self.role}"'] if self.role in ("ood", "reference", "pairs") else []
            if unfit:
                raise UserError(f"{at}: {unfit[0]} does not go with questions, whose options are the classes")


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "role": ROLES,
    "labels": LABEL_KINDS,
    "distance": ("near", "far"),
    "reader": READERS,
    "class_map_rule": MAP_RULES,
}
_NOT_OF_QUESTIONS = (
    "recipe", "classes", "class_space", "class_mask", "class_map", "manifest", "captions", "per_class"
)  # fmt: skip
_NO_KEYS = ("name", "where", "data")
_KEYS = tuple(f.name for f in fields(DatasetSpec) if f.name not in _NO_KEYS)
_TEXT = {
    "recipe",
    "role",
    "shift_of",
    "distance",
    "class_space",
    "labels",
    "class_map_rule",
    "captions",
    "path_column",
    "label_column",
    "reader",
    "split",
}
_TEXT |= {"licence", "path", "manifest", "questions"}
_WHOLE = {"per_class", "seed", "border_crop", "already_cropped"}
_YES_NO = {"follow_links", "allow_count_mismatch"}


def read_datasets_toml(path: str | Path) -> list[DatasetSpec]:
    """Read ``datasets.toml``.

    Returns
    -------
    list of DatasetSpec
        In the file's order.

    Raises
    ------
    UserError
        No such file, not TOML, an unknown key (answered with the nearest) or a value of the wrong kind.
    """
    path = Path(path)
    try:
        tables = parse_toml(read_text_file(path, "dataset file"), str(path))
    except FileNotFoundError:
        raise UserError(f"no file {path}; 'extract datasets --root DIR --write {path}' makes one") from None
    specs = [spec_from_table(name, table, path.parent, where=f"{path} [{name}]") for name, table in tables.items()]
    if not specs:
        raise UserError(f'{path} names no dataset; a dataset is a table: [my-images] path = "..."')
    return specs


def spec_from_table(name: str, table: object, folder: Path, *, where: str = "") -> DatasetSpec:
    """Build a spec from one table; ``folder`` is what its relative paths are relative to."""
    where = where or f"dataset {name}"
    if not isinstance(table, dict):
        raise UserError(f"{where}: {name} = {table!r} is outside every table; a dataset is a table [NAME]")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, _KEYS)}")
        values[key] = _checked(key, value, where)
    if "path" not in values:
        raise UserError(f"{where}: path is missing: the folder that holds the images")
    values["path"] = (folder / Path(values["path"]).expanduser()).absolute()
    for key in ("manifest", "questions"):
        if key in values:
            values[key] = _beside(key, Path(values[key]).expanduser(), folder, values["path"], where)
    classes = values.get("classes")
    if isinstance(classes, str) and classes.endswith(".txt"):
        values["classes"] = str((folder / Path(classes).expanduser()).absolute())
    return DatasetSpec(name=name, where=where, **values)


def _beside(key: str, name: Path, folder: Path, images: Path, where: str) -> Path:
    """Return a table's path: relative to the folder of ``datasets.toml``, else in or beside that of the images."""
    places = list(dict.fromkeys((base / name).absolute() for base in (folder, images, images.parent)))
    there = [place for place in places if place.is_file()]
    if len({place.resolve() for place in there}) > 1:
        both = " and ".join(map(str, there))
        raise UserError(f"{where}: {key} = {str(name)!r} could be {both}; write its whole path")
    return there[0] if there else places[0]


def _checked(key: str, value: object, where: str) -> Any:
    """Return the value in the type of its field, or raise `UserError`."""
    if key in _TEXT and isinstance(value, str):
        return value
    if key in _WHOLE and isinstance(value, int) and not isinstance(value, bool):
        return value
    if key in _YES_NO and isinstance(value, bool):
        return value
    if key == "classes" and (isinstance(value, str) or _is_list_of(value, str)):
        return tuple(value) if isinstance(value, list) else value
    if key == "class_mask" and _is_list_of(value, str | int):
        return tuple(value)  # type: ignore[arg-type]
    if key == "class_map" and isinstance(value, list) and all(_is_list_of(row, str | int) for row in value):
        return tuple(tuple(row) for row in value)
    kind = (
        "text"
        if key in _TEXT
        else "a whole number"
        if key in _WHOLE
        else "true or false"
        if key in _YES_NO
        else "a list"
    )
    raise UserError(f"{where}: {key} = {value!r} should be {kind}")


def _is_list_of(value: object, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def write_datasets_toml(path: str | Path, specs: Iterable[DatasetSpec], *, header: str = "") -> None:
    """Write specs as ``datasets.toml``, with paths relative to its folder where they lie below it.

    Parameters
    ----------
    path
        The file; its folder must exist.
    specs
        Only what differs from the defaults is written.
    header
        Lines of comment put at the top.
    """
    path = Path(path)
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for spec in specs:
        lines += ["", f"[{_key(spec.name)}]"]
        for f in fields(DatasetSpec):
            value = getattr(spec, f.name)
            if f.name in _NO_KEYS or value is None or (f.name != "path" and value == f.default):
                continue
            lines.append(f"{f.name} = {_toml(_shown(f.name, value, path.absolute().parent))}")
    path.write_text("\n".join(lines).lstrip("\n") + "\n", encoding="utf-8")


def _shown(key: str, value: Any, folder: Path) -> Any:
    is_file = key in ("path", "manifest", "questions") or (
        key == "classes" and isinstance(value, str) and value.endswith(".txt")
    )
    if is_file:
        absolute = Path(value).absolute()
        return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)
    return value


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # TOML's escapes are JSON's, and TOML also requires an escaped delete character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
