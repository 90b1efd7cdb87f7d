"""Convert stores between Zarr and HDF5; equal digests are a condition of publishing."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", help="a cache or one store, a path or an address")
    parser.add_argument("destination", type=Path, help="the cache to write to; may be the source's own")
    parser.add_argument(
        "--to", choices=("zarr", "hdf5"), required=True, dest="backend", help="the format to write"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put the converted store in the place of one of the same identity (else it is left as it is)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert what is not there yet."""
    from rich.console import Console

    from cache_schema.backends import reader_of
    from cache_schema.console.progress import Bar
    from cache_schema.console.terminal import told_of
    from cache_schema.convert import convert_store
    from cache_schema.errors import CacheError, StoreExistsError, UserError
    from cache_schema.places.addresses import is_address, meant_address
    from cache_schema.store import store_of
    from cache_schema.validate import store_paths

    if is_address(args.source):
        from cache_schema.copying.pull import stores_at

        place, names = stores_at(args.source)
        readers = {f"{place.title}/{name}": functools.partial(place.reader, name) for name in names}
    else:
        if not Path(args.source).exists():
            raise UserError(f"nothing at {args.source}{meant_address(args.source)}")
        readers = {str(path): functools.partial(reader_of, path) for path in store_paths(args.source)}
    if is_address(str(args.destination)) or meant_address(args.destination):
        raise UserError(f"{args.destination}: convert into a folder, and push that")
    out = Console(highlight=False, soft_wrap=True)
    done, there, failed = 0, 0, 0
    with Bar("converting", "stores") as progress:
        for path, reader in progress.track(list(readers.items())):
            try:
                store = store_of(reader())
                made = convert_store(store, args.destination, args.backend, overwrite=args.replace)
            except StoreExistsError:
                there += 1
            except CacheError as error:
                failed += 1
                out.print(told_of(path, error), markup=False)
            else:
                done += 1
                out.print(f"{made.path}: {made.digest[:8]}, as {store.path.name}", markup=False)
    out.print(f"{done} stores converted, {there} there already, {failed} failed")
    return 1 if failed else 0
