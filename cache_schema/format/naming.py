"""File names of stores: turn any model, dataset or prompt-set name into one that every file system accepts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cache_schema.format.schema import KINDS
from closerlook_common.errors import UserError, nearest

SUFFIXES = {"zarr": ".zarr", "hdf5": ".h5"}
"""Backend -> suffix of its stores."""
ZARR_HEADER = "zarr.json"
"""The file of a Zarr store that its header is in."""

SLUG_LENGTH = 80
_STORE = re.compile(r".+-[0-9a-f]{8}\.(zarr|h5)")
_SYSTEM_FILES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".localized", "icon\r"}
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")


def slug(name: str) -> str:
    """Return a file name for a name.

    Lower case letters, digits, ``.``, ``_`` and ``-``. A name that had to be changed gets eight digits of its
    SHA-256 appended, so that different names never share a slug. The store keeps the real name.

    Parameters
    ----------
    name
        Any text.

    Returns
    -------
    str
        At most 89 characters, never hidden, never ``.`` or ``..``.

    Examples
    --------
    >>> slug("resnet50.a1_in1k")
    'resnet50.a1_in1k'
    >>> slug("ViT-B-32/openai")
    'vit-b-32-openai-200b2ac0'
    """
    clean = re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:SLUG_LENGTH].strip("-.")
    if clean and clean == name and not _RESERVED.match(clean):
        return clean
    return f"{clean or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def is_system_file(name: str) -> bool:
    """Return whether a file is one that desktops leave in folders that they show; it is not part of a cache.

    Examples
    --------
    >>> [is_system_file(name) for name in (".DS_Store", "._labels", "Thumbs.db", "desktop.ini", "zarr.json")]
    [True, True, True, True, False]
    """
    return name.startswith("._") or name.lower() in _SYSTEM_FILES


def suffix_of(backend: str) -> str:
    """Return ``.zarr`` or ``.h5``; UserError for another backend."""
    if backend not in SUFFIXES:
        raise UserError(f"no backend {backend!r}{nearest(backend, SUFFIXES)}; there are {', '.join(SUFFIXES)}")
    return SUFFIXES[backend]


def backend_of(path: Path | str) -> str | None:
    """Return the backend that a path's suffix names, or None."""
    suffix = Path(path).suffix
    return next((backend for backend, known in SUFFIXES.items() if known == suffix), None)


def store_name(name: str, identity: str, backend: str = "zarr") -> str:
    """Return the file name of a store: ``<slug>-<identity8>.zarr`` or ``.h5``.

    Parameters
    ----------
    name
        Dataset id; for a head ``<class space>-<prompt set>``.
    identity
        64 hexadecimal digits from :func:`cache_schema.identity`.
    backend
        ``zarr`` or ``hdf5``.
    """
    return f"{slug(name)}-{identity[:8]}{suffix_of(backend)}"


def store_folder(cache_path: Path | str, kind: str, model_id: str) -> Path:
    """Return the folder that a model's stores of one kind lie in."""
    return Path(cache_path) / slug(model_id) / KINDS[kind].folder


def store_folders(cache_path: Path | str, model: str = "") -> Iterator[Path]:
    """Yield the folders of a cache that may hold stores: those of models and of the kinds below; with the
    slug of a model, only its folders.
    """
    below = {spec.folder for spec in KINDS.values() if spec.folder}
    with os.scandir(cache_path) as models:
        folders = sorted(entry.path for entry in models if model in ("", entry.name) and _is_plain_folder(entry))
    for folder in folders:
        yield Path(folder)
        with os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if entry.name in below and entry.is_dir())
        yield from map(Path, inner)


def refuse_model_folder(path: Path) -> None:
    """Raise UserError if a folder is one model's folder in a cache rather than the cache."""
    inner = {spec.folder for spec in KINDS.values()}
    with os.scandir(path) as entries:
        names = {entry.name: _is_plain_folder(entry) for entry in entries}
    if any(map(_STORE.fullmatch, names)) and not any(plain for name, plain in names.items() if name not in inner):
        model = path.absolute().parent if path.name in inner else path.absolute()
        raise UserError(f"{path} holds stores of one model: name the cache, {model.parent}")


def _is_plain_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and backend_of(entry.name) is None and entry.is_dir()


def head_name(class_space: str, prompt_set: str) -> str:
    """Return the name that a head store is called by."""
    return f"{class_space}-{prompt_set}" if prompt_set else class_space


def published(cache_path: Path | str, kind: str, model_id: str, name: str, identity: str) -> Path | None:
    """Return the path of a published store, whichever backend wrote it, or None.

    A published store is sealed, so this is enough to know that a job is done; no store is opened.

    Parameters
    ----------
    cache_path, kind, model_id
        Where to look.
    name
        Dataset id, or :func:`head_name` for a head.
    identity
        64 hexadecimal digits.
    """
    folder = store_folder(cache_path, kind, model_id)
    for backend in SUFFIXES:
        path = folder / store_name(name, identity, backend)
        if path.exists():
            return path
    return None
