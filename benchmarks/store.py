"""What a store costs against its limits: size, write, read, listing, side by side in one run.

    python benchmarks/store.py [--rows 50000] [--classes 1000] [--stores 1000]

Limits: ``numpy.load`` of the same float16 numbers uncompressed (reading), float32 as ``numpy.save`` writes it (size).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import Recorder

import cache_schema
from cache_schema.format.centred import encode


def clip_like_logits(rows: int, classes: int) -> np.ndarray:
    """Return logits like a CLIP's: scaled cosines of random unit vectors, float32."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((rows, 512), dtype=np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts = rng.standard_normal((classes, 512), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return 60 * images @ texts.T + 15


def best(work: Callable[[], object], repeat: int = 5) -> float:
    """Return the shortest of several wall times, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def opening(path: Path, repeat: int = 200) -> float:
    """Return the least processor time that opening a store takes, in milliseconds; its structure is checked."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        cache_schema.open_store(path)
        times.append(time.process_time() - start)
    return 1000 * min(times)


def wide(folder: Path, backend: str, columns: int = 60) -> Path:
    """Write a summary store of many columns; return its path."""
    return cache_schema.write_summary(
        folder / "wide",
        model=cache_schema.ModelCard(id="model"),
        dataset=cache_schema.DatasetCard(id=backend),
        columns={f"column{i}": np.arange(5000.0) for i in range(columns)},
        backend=backend,
    ).path


def listing(folder: Path, store: Path, stores: int) -> float:
    """Return the seconds that listing a cache of many stores takes; copies of one header are used."""
    for i in range(stores):
        target = folder / "many" / f"model{i % 200}" / f"{i}-00000000{store.suffix}"
        if store.is_dir():
            target.mkdir(parents=True)
            shutil.copy(store / "zarr.json", target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(store)
    seconds = best(lambda: cache_schema.open_cache(folder / "many").stores(), 3)
    shutil.rmtree(folder / "many")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--stores", type=int, default=1000, help="how many are listed")
    args = parser.parse_args()
    record = Recorder("store", parser, args, sizes={"rows": (), "classes": (), "stores": ()})
    logits = clip_like_logits(args.rows, args.classes)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.save(folder / "raw.npy", encode(logits).logits)
        limit = best(lambda: np.load(folder / "raw.npy"))
        print(f"{args.rows} x {args.classes}: float32 {logits.nbytes / 1e6:.0f} MB; np.load of float16 {limit:.3f} s")
        record.add("np.load", limit)
        print(
            "format  size/float32  write s  read s  read/np.load  blocks s  opened ms  60 columns ms"
            f"  {args.stores} listed s"
        )
        for backend in ("zarr", "hdf5"):
            start = time.perf_counter()
            store = cache_schema.write_store(
                folder / "cache",
                model=cache_schema.ModelCard(id="model"),
                dataset=cache_schema.DatasetCard(id=backend),
                logits=logits,
                labels=np.zeros(args.rows, np.int32),
                backend=backend,
            )
            written = time.perf_counter() - start
            read = best(store.centred_logits)
            blocks = best(lambda store=store: [block.start for block in store.blocks(centred=True)])
            opened, many = opening(store.path), opening(wide(folder, backend))
            size, listed = store.n_bytes() / logits.nbytes, listing(folder, store.path, args.stores)
            print(
                f"{backend:<6}  {size:12.3f}  {written:7.2f}  {read:6.3f}  {read / limit:12.2f}"
                f"  {blocks:8.3f}  {opened:9.3f}  {many:13.3f}  {listed:13.3f}"
            )
            figures = {
                "size": size, "write": written, "read": read, "blocks": blocks, "listed": listed, "opened": opened,
                "60 columns": many,
            }  # fmt: skip
            for name, figure in figures.items():
                record.add(f"{backend}/{name}", figure, ratio=read / limit if name == "read" else None)
    record.write()


if __name__ == "__main__":
    main()
