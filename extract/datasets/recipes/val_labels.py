"""Labels of a flat ImageNet-val folder, from the files that people keep next to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.parsers import expat

import polars as pl

from closerlook_common.errors import UserError
from closerlook_common.input_files import read_bytes_file, read_text_file, refuse_lfs_pointer
from extract.classes.spaces import ClassSpace
from extract.datasets.labels import label_map, looks_like_wnid

FILE_NUMBER = re.compile(r"ILSVRC2012_val_0*(\d+)", re.IGNORECASE)

_LISTS = (
    "val.txt",
    "val_list.txt",
    "val_map.txt",
    "imagenet_val.txt",
    "ILSVRC2012_val.txt",
    "caffe_ilsvrc12/val.txt",
)
_SYNSETS = ("imagenet_2012_validation_synset_labels.txt", "validation_synset_labels.txt", "synset_labels.txt")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_XML = (
    "Annotations/CLS-LOC/val",
    "ILSVRC/Annotations/CLS-LOC/val",
    "Annotations/val",
    "ILSVRC2012_bbox_val_v3/val",
)
KNOWN = (
    "LOC_val_solution.csv",
    "val.txt",
    _SYNSETS[0],
    f"{_TRUTH} with meta.mat",
    "Annotations/CLS-LOC/val/*.xml",
)
_LEVELS_UP = 4
_MOST_XML = 1 << 20


def file_number(name: str) -> int | None:
    """Return the number of an ImageNet-val file name, from 1; None for other names."""
    match = FILE_NUMBER.search(name)
    return int(match[1]) if match else None


def find_labels(images: Path, names: Sequence[str], space: ClassSpace) -> tuple[dict[str, int], str]:
    """Return the label of every image, by its name without suffix, and the file that holds them.

    Label files are looked for in the image folder and up to four folders above it.

    Raises
    ------
    UserError
        There is no such file, or it does not name all images.
    """
    stems = [Path(name).stem for name in names]
    for folder in (images, *list(images.parents)[:_LEVELS_UP]):
        for find in _FINDERS:
            for source, texts in _found(find, folder, stems):
                missing = next((stem for stem in stems if stem not in texts), None)
                if missing is not None:
                    raise UserError(f"{source} says nothing of {missing} in {images}")
                index = label_map({texts[stem] for stem in stems}, space, where=str(source))
                return {stem: index[texts[stem]] for stem in stems}, source.name
    raise UserError(
        f"{images} holds images without class folders, and no file holds their labels;"
        f" put one of these beside or above it: {', '.join(KNOWN)}"
    )


_Texts = Iterator[tuple[Path, dict[str, str]]]


def _found(find: Callable[[Path, Sequence[str]], _Texts], folder: Path, stems: Sequence[str]) -> _Texts:
    """Yield what a finder finds; a label file that is not in its form is an error that names the folder and form."""
    try:
        yield from find(folder, stems)
    except UserError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        form = (find.__doc__ or "").partition(":")[0].partition(";")[0].removeprefix("Read ").strip()
        raise UserError(f"{folder}: {form} cannot be read ({type(error).__name__}: {error})") from None


def _kaggle(folder: Path, stems: Sequence[str]) -> _Texts:
    """Read LOC_val_solution.csv: ``ImageId,PredictionString``, the string being ``wnid x y x y [wnid
    ...]``.
    """
    path = folder / "LOC_val_solution.csv"
    if path.is_file():
        refuse_lfs_pointer(path)
        table = pl.read_csv(path, columns=["ImageId", "PredictionString"], infer_schema=False)
        yield path, {name: text.split()[0] for name, text in table.iter_rows()}


def _lists(folder: Path, stems: Sequence[str]) -> _Texts:
    """Read ``name label`` lines; labels are WordNet ids or indices in the order of sorted WordNet ids."""
    for name in _LISTS:
        path = folder / name
        if path.is_file():
            rows = (line.replace(",", " ").split() for line in read_text_file(path, "label file").splitlines())
            yield path, {Path(row[0]).stem: row[1] for row in rows if len(row) >= 2}


def _synsets(folder: Path, stems: Sequence[str]) -> _Texts:
    """Read one WordNet id a line, by file number."""
    for name in _SYNSETS:
        path = folder / name
        if path.is_file():
            lines = read_text_file(path, "label file").split()
            yield path, _by_number(stems, lines)


def _devkit(folder: Path, stems: Sequence[str]) -> _Texts:
    """Read the devkit's ground truth, whose numbers are ILSVRC2012 ids: an order of its own, given by
    meta.mat.
    """
    for place in (folder, folder / "data", folder / "ILSVRC2012_devkit_t12" / "data"):
        path, meta = place / _TRUTH, place / "meta.mat"
        if not path.is_file():
            continue
        if not meta.is_file():
            raise UserError(f"{path} uses its own order of classes; put the devkit's meta.mat beside it")
        from scipy.io import loadmat

        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        wnid = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        yield path, _by_number(stems, [wnid[int(line)] for line in read_text_file(path, "label file").split()])


def _xml(folder: Path, stems: Sequence[str]) -> _Texts:
    """Read the bounding-box annotations: the first object's name is the WordNet id of the image."""
    for name in _XML:
        place = folder / name
        if place.is_dir():
            yield place, {stem: text for stem in stems if (text := _first_object(place / f"{stem}.xml"))}


def _first_object(path: Path) -> str:
    """Return the name of the first object of an annotation; empty where there is none or the file is no plain XML."""
    try:
        name = _text_of(read_bytes_file(path, "annotation", limit=_MOST_XML), ("annotation", "object", "name"))
    except (UserError, expat.ExpatError, ValueError):
        return ""
    return name if looks_like_wnid(name) else ""


def _text_of(data: bytes, wanted: Sequence[str]) -> str:
    """Return the text of the first element of a path; entities, which may expand without end, are refused."""
    parser = expat.ParserCreate()
    place: list[str] = []
    texts: list[list[str]] = []

    def refuse(*_: object) -> None:
        raise ValueError("an annotation declares no document type and no entities")

    def start(name: str, _: object) -> None:
        place.append(name)
        if place == list(wanted):
            texts.append([])

    def text(part: str) -> None:
        if place == list(wanted):
            texts[-1].append(part)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: place.pop()
    parser.CharacterDataHandler = text
    parser.Parse(data, True)
    return "".join(texts[0]).strip() if texts else ""


def _by_number(stems: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    numbers = {stem: file_number(stem) for stem in stems}
    return {stem: lines[n - 1] for stem, n in numbers.items() if n is not None and 0 < n <= len(lines)}


_FINDERS: tuple[Callable[[Path, Sequence[str]], _Texts], ...] = (_kaggle, _lists, _synsets, _devkit, _xml)
