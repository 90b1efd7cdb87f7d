"""Convert stores between Zarr and HDF5, verified by their digests."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", help="a cache or one store, a path or an address")
    parser.add_argument("destination", type=Path, help="the cache to write to; may be the source's own")
    parser.add_argument("--to", choices=("zarr", "hdf5"), required=True, dest="backend", help="the format to write")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace existing stores of the same identity (default: keep them)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert the stores that the destination does not have."""
    from rich.console import Console

    from cache_schema.backends import reader_of
    from cache_schema.copying.roles import copy_roles
    from cache_schema.format.dataset_facts import recorded_in
    from cache_schema.format.naming import backend_of
    from cache_schema.reading.open_stores import store_of
    from cache_schema.reading.places.addresses import is_address, meant_address
    from cache_schema.writing.convert import convert_store
    from cache_schema.writing.validate import store_paths
    from closerlook_common.console.messages import line
    from closerlook_common.console.progress import Bar
    from closerlook_common.console.terminal import with_name
    from closerlook_common.errors import CacheError, StoreExistsError, UserError

    if is_address(args.source):
        from cache_schema.copying.pull import stores_at

        place, names = stores_at(args.source)
        readers = {f"{place.title}/{name}": functools.partial(place.reader, name) for name in names}
    else:
        if not Path(args.source).exists():
            raise UserError(f"nothing at {args.source}{meant_address(args.source)}")
        readers = {str(path): functools.partial(reader_of, path) for path in store_paths(args.source)}
    recorded = None
    if is_address(args.source):
        recorded = place.recorded() if backend_of(args.source.rstrip("/")) is None else None
    elif backend_of(args.source) is None:
        recorded = recorded_in(args.source)
    if is_address(str(args.destination)) or meant_address(args.destination):
        raise UserError(f"{args.destination}: convert into a folder, and push that")
    out = Console(highlight=False, soft_wrap=True)
    done, there, failed = 0, 0, 0
    with Bar("converting", "stores", len(readers)) as progress:
        for path, reader in progress.track(readers.items()):
            try:
                store = store_of(reader())
                made = convert_store(store, args.destination, args.backend, overwrite=args.replace)
            except StoreExistsError:
                there += 1
            except CacheError as error:
                failed += 1
                out.print(line(with_name(path, error)))
            else:
                done += 1
                out.print(line(f"{made.path}: {made.digest[:8]}, as {store.path.name}"))
    problems = copy_roles(recorded, args.destination) if recorded is not None else []
    for problem in problems:
        out.print(line(f"not copied: {problem}"))
    out.print(line(f"{counted(done, 'store')} converted, {there} there already, {failed} failed"))
    return 1 if failed or problems else 0
