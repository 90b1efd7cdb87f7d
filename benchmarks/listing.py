"""What listing a cache of many stores costs, with and without a catalogue, next to the limit.

    python benchmarks/listing.py [--stores 10000 100000]

The limit is ``scandir`` and ``lstat`` of the files with the headers. The stores are headers alone, each of another
model or dataset; catalogues are kept in a folder of the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import Recorder

import cache_schema
from cache_schema.format.seal import dump_with_digest
from cache_schema.reading import listing

MODELS = 200


def headers(folder: Path, stores: int) -> Path:
    """Write a cache of headers alone; return its path."""
    written = cache_schema.write_store(
        folder / "one",
        model=cache_schema.ModelCard(id="model"),
        dataset=cache_schema.DatasetCard(id="data"),
        logits=np.random.default_rng(0).normal(size=(50, 100)).astype(np.float32),
        overwrite=True,
    )
    document = json.loads((written.path / "zarr.json").read_text())
    document["attributes"]["closerlook_files"]["file_digest"] = None
    header = document["attributes"]["closerlook"]
    cache = folder / f"cache{stores}"
    for i in range(stores):
        header["model"]["id"], header["dataset"]["id"] = f"model{i % MODELS}", f"data{i // MODELS}"
        header["identity"] = f"{i:064x}"
        target = cache / f"model{i % MODELS}" / f"data{i // MODELS}-{i:08x}.zarr"
        target.mkdir(parents=True)
        (target / "zarr.json").write_bytes(dump_with_digest(document))
    return cache


def states(cache: Path) -> None:
    """Ask for the state of each header's file, and nothing else."""
    for model in os.scandir(cache):
        for store in os.scandir(model.path):
            os.lstat(f"{store.path}/zarr.json")


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the shortest of several wall times."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def listed(cache: Path) -> None:
    """List a cache as a new process does."""
    cache_schema.open_cache(cache).stores()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    record = Recorder("listing", parser, args, sizes={"stores": ()})
    print("stores   limit s  opened s  catalogue s  opened/limit  catalogue/limit")
    with tempfile.TemporaryDirectory() as made:
        os.environ["XDG_CACHE_HOME"] = f"{made}/home"
        for count in args.stores:
            cache = headers(Path(made), count)
            time.sleep(listing.SETTLED_NS / 1e9 + 1)
            opened = seconds(lambda cache=cache: listed(cache), 1)
            limit = seconds(lambda cache=cache: states(cache), 3)
            kept = seconds(lambda cache=cache: listed(cache), 3)
            print(
                f"{count:<7}  {limit:7.3f}  {opened:8.2f}  {kept:11.3f}  {opened / limit:12.1f}  {kept / limit:15.2f}"
            )
            if count in parser.get_default("stores"):
                record.add(f"{count}/limit", limit)
                record.add(f"{count}/opened", opened, ratio=opened / limit)
                record.add(f"{count}/catalogue", kept, ratio=kept / limit)
    record.write()


if __name__ == "__main__":
    main()
