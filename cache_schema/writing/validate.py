"""Check every rule of SPEC.md on a store or a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_schema.backends import reader_of
from cache_schema.backends.base import StoreReader
from cache_schema.format.centred import kept_classes
from cache_schema.format.dataset_facts import FOLDER as RECORDS
from cache_schema.format.dataset_facts import collect, read_raw, record_names
from cache_schema.format.failures import FOLDER as FAILURES
from cache_schema.format.failures import failure_paths, read_failure
from cache_schema.format.naming import backend_of, refuse_model_folder, slug, store_folders, store_name
from cache_schema.format.row_rules import label_limit, label_problem
from cache_schema.format.schema import KINDS, OFFSETS, layout
from cache_schema.format.seal import ArrayDigest, store_digest
from cache_schema.format.structure import structure_problems
from cache_schema.format.text_arrays import decode_text
from cache_schema.reading.open_stores import store_of
from cache_schema.reading.store import PredictionStore, Store
from cache_schema.writing.convert import store_title
from closerlook_common.errors import CacheError, CloserlookError, CorruptStoreError, UserError


class Problem(NamedTuple):
    """A violated rule."""

    path: Path
    what: str


def problems(path: Path | str, *, bytes_only: bool = False) -> list[str]:
    """Return everything that is wrong with a store.

    Parameters
    ----------
    path
        A published store.
    bytes_only
        Only compare the bytes on disk with the seal, which finds every changed, missing or surplus byte.
        Otherwise also decode the arrays, recompute their digests and check their values, which finds errors of
        the writer.

    Returns
    -------
    list of str
        Empty if all rules hold. If bytes are damaged, only those are reported.
    """
    reader = reader_of(Path(path))
    try:
        try:
            header = reader.header()
        except CorruptStoreError:
            if changed := reader.byte_problems():
                return changed
            raise
        found = reader.byte_problems()
        if found or bytes_only:
            return found
        reader.check()
        return _content_problems(reader, header)
    except CloserlookError as error:
        return [str(error)]
    except OSError as error:
        return [f"{path} cannot be read: {error}"]


def _content_problems(reader: StoreReader, header: dict[str, Any]) -> list[str]:
    sealed = header["seal"]["arrays"]
    there = reader.arrays()
    listed = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in sealed.items()}
    found = [f"{name}: sealed, but not there" for name in sorted(set(listed) - set(there))]
    found += [f"{name}: there, but not sealed" for name in sorted(set(there) - set(listed))]
    found += [
        f"{name}: is {there[name]}, sealed was {listed[name]}"
        for name in sorted(set(there) & set(listed))
        if there[name] != listed[name]
    ]
    found += structure_problems(header["kind"], listed, header["details"], header["seal"]["n"])
    if found:
        return found
    store = store_of(reader)
    found += _name_problems(store)
    if store_digest(header, sealed) != store.digest:
        found.append("the store's digest is not that of its arrays' digests")
    rules = _row_rules(store) if isinstance(store, PredictionStore) else {}
    for name, entry in sealed.items():
        rule = rules.get(name)
        digest = ArrayDigest(np.dtype(entry["dtype"]), tuple(entry["shape"]))
        for start, block in _shards(store, name):
            digest.update(block)
            if rule is not None:
                found += [f"{name}: {what}" for what in rule(start, block)][:1]
                rule = rule if not found else None
        if digest.hexdigest() != entry["digest"]:
            found.append(f"{name}: its content is not what was sealed")
    return found + _text_problems(store)


def _shards(store: Store, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    shape = store.shape(name)
    dtype = np.dtype(store.header["seal"]["arrays"][name]["dtype"])
    step = layout(shape, dtype.itemsize).shard_rows
    for start in range(0, shape[0], step):
        yield start, store.read(name, start, start + step)


def _name_problems(store: Store) -> list[str]:
    found = []
    expected = store_name(store_title(store), store.identity, str(backend_of(store.path)))
    if store.path.name != expected:
        found.append(f"is named {store.path.name}, its dataset and identity ask for {expected}")
    below = KINDS[store.kind].folder
    folder = store.path.absolute().parent
    owner = folder.parent if below else folder
    if (below and folder.name != below) or owner.name != slug(store.model.id):
        place = "/".join(part for part in (slug(store.model.id), below) if part)
        found.append(f"lies in {folder.name}, its model and kind ask for {place}")
    return found


def _text_problems(store: Store) -> list[str]:
    found = []
    for name in store.array_names:
        if not name.endswith(OFFSETS):
            continue
        base = name.removesuffix(OFFSETS)
        try:
            values = decode_text(store.read(base), store.read(name))
        except (CacheError, UnicodeDecodeError) as error:
            found.append(f"{base}: {error}")
            continue
        if base == "image_id" and (len(set(values)) != len(values) or "" in values):
            found.append("image_id: an id is empty or occurs twice")
    return found


Rule = Callable[[int, NDArray[Any]], list[str]]


def _row_rules(store: PredictionStore) -> dict[str, Rule]:
    """Return what must hold of the rows of a prediction store, by array."""
    valid, card = store.valid, store.dataset
    members = kept_classes(card.class_mask, card.class_map)
    limit = label_limit(card, store.n_classes)

    def logits(start: int, block: NDArray[Any]) -> list[str]:
        keep = valid[start : start + len(block)]
        tops = (block if members is None else block[:, members])[keep].max(axis=1)
        found = [] if (tops == 0).all() else ["a valid row's top over the kept classes is not 0"]
        if np.isnan(block[keep]).any() or np.isposinf(block[keep]).any():
            found.append("a valid row holds NaN or +inf")
        return found if np.isnan(block[~keep]).all() else [*found, "an invalid row holds numbers"]

    def finite(start: int, block: NDArray[Any]) -> list[str]:
        keep = valid[start : start + len(block)]
        found = [] if np.isfinite(block[keep]).all() else ["a valid row holds NaN or infinity"]
        return found if np.isnan(block[~keep]).all() else [*found, "an invalid row holds numbers"]

    def labels(start: int, block: NDArray[Any]) -> list[str]:
        problem = label_problem(block, limit, first_row=start)
        return [problem] if problem else []

    def counted(start: int, block: NDArray[Any]) -> list[str]:
        return [] if int(valid.sum()) == store.details["n_valid"] else ["does not have n_valid valid rows"]

    def whole(start: int, block: NDArray[Any]) -> list[str]:
        keep = valid[start : start + len(block)].reshape(-1, *[1] * (block.ndim - 1))
        return [] if ((block >= 0) == keep).all() else ["is not -1 in invalid rows alone"]

    rules: dict[str, Rule] = {
        "logits": logits,
        "logit_center": finite,
        "features": finite,
        "labels": labels,
        "valid": counted,
    }
    for spec in KINDS["predictions"].arrays:
        if spec.part:
            rules[spec.name] = finite if spec.dtypes[0].startswith("float") else whole
    return rules


def store_paths(path: Path | str) -> list[Path]:
    """Return a cache's published stores, or the path itself if it is a store."""
    root = Path(path)
    if backend_of(root) is not None:
        return [root]
    if not root.is_dir():
        raise UserError(f"{root} is neither a cache nor a store")
    refuse_model_folder(root)
    return [
        entry
        for folder in store_folders(root)
        for entry in sorted(folder.iterdir())
        if backend_of(entry) is not None and not entry.name.startswith(".")
    ]


def cache_problems(path: Path | str) -> Iterator[Problem]:
    """Yield problems of a cache outside its stores: damaged records of failures and of datasets' roles."""
    for name in record_names(path):
        for problem in collect([name], lambda name: read_raw(path, name)).problems:
            yield Problem(Path(path) / RECORDS / name, f"in {RECORDS}: {problem}")
    for record in failure_paths(path):
        try:
            read_failure(record)
        except FileNotFoundError:  # the job succeeded meanwhile
            continue
        except (CacheError, OSError, json.JSONDecodeError) as error:
            yield Problem(record, f"in {FAILURES}: {error}")
