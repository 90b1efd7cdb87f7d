"""The analysis against its limits and its peers, side by side in one run.

    python benchmarks/analysis.py card      one store's whole card against the fastest peer for each number
    python benchmarks/analysis.py pass      the fused pass against reading and decompressing the same store
    python benchmarks/analysis.py memory    peak memory over the imports, n and 10 n images
    python benchmarks/analysis.py study     many models x 13 sets from summary stores, without and with a bootstrap
    python benchmarks/analysis.py growth    seconds an image as n grows tenfold
    python benchmarks/analysis.py all       everything

Data are synthetic and made beforehand; times are medians of several runs by the clock, kernels compiled before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_kib
from record import Recorder

STUDY_SETS = {
    "imagenet-val": ("id", 50_000),
    "imagenet-v2-a": ("shift", 10_000),
    "imagenet-v2-b": ("shift", 10_000),
    "imagenet-v2-c": ("shift", 10_000),
    "imagenet-r": ("shift", 30_000),
    "imagenet-a": ("shift", 7_500),
    "imagenet-sketch": ("shift", 50_889),
    "objectnet": ("shift", 18_514),
    "vid-robust": ("shift", 25_000),
    "inaturalist": ("ood", 10_000),
    "sun": ("ood", 10_000),
    "places": ("ood", 10_000),
    "textures": ("ood", 8_000),
}
"""Thirteen sets, 250,000 images a model."""


def median(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Return the median of several wall times, and the last answer."""
    times, answer = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), answer


def write_predictions(root: Path, name: str, role: str, n: int, n_classes: int, seed: int, model: str = "m") -> None:
    """Write a store block by block, so that any n fits into memory."""
    from cache_schema import DatasetCard, ModelCard, StoreWriter

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    writer = StoreWriter(
        root,
        model=ModelCard(id=model, head_kind="linear"),
        dataset=DatasetCard(
            id=name, role=role, class_space="toy", n_classes=n_classes, distance="far" * (role == "ood")
        ),
        n_images=n,
        n_classes=n_classes,
        image_ids=[f"{i:08d}.jpg" for i in range(n)],
        labels=None if role == "ood" else labels,
    )
    with writer:
        for start in range(0, n, 8192):
            rows = min(8192, n - start)
            logits = rng.normal(0, 2.0, (rows, n_classes)).astype(np.float32)
            if role != "ood":
                logits[np.arange(rows), labels[start : start + rows]] += rng.gamma(4.0, 2.4, rows).astype(np.float32)
            writer.append(logits=logits)


# ------------------------------------------------------------------------------------------------------- (a) card


def card(args: argparse.Namespace, record: Recorder) -> None:
    """Time one model's whole card against the sum of the fastest peer for each number."""
    from analyze.evaluate import evaluate
    from analyze.evaluate.cells import Cells
    from cache_schema import open_cache

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_predictions(root, "val", "id", args.images, args.classes, 0)
        write_predictions(root, "far", "ood", args.ood, args.classes, 1)
        cache = open_cache(root)
        evaluate(cache)  # compiles
        ours, result = median(lambda: evaluate(cache, cells=Cells(None)))
        only = ["accuracy", "calibration", "selective", "detection"]
        asked, _ = median(lambda: evaluate(cache, cells=Cells(None), only=only))
        inside, outside = cache.store("m", "val"), cache.store("m", "far")
        logits, labels, ood = inside.logits(), np.asarray(inside.labels), outside.logits()
    values = {
        (r["metric"], r["score"], r["calibrator"], r["subset"]): r["value"]
        for r in result.table.iter_rows(named=True)
        if r["value"] is not None
    }
    print(f"\n(a) the card of one {args.images:,} x {args.classes:,} store; six OOD scores against {args.ood:,} images")
    total = 0.0
    print(f"{'number':<34}{'fastest peer':<26}{'s':>9}   peer's value   ours")
    from analysis_peers import peers

    for number, times, key in peers(logits, labels, ood, median):
        name, (seconds, value, count) = min(times.items(), key=lambda item: item[1][0] * item[1][2])
        total += seconds * count
        own = values.get(key)
        text = f"{number} x{count}" if count > 1 else number
        print(f"{text:<34}{name:<26}{seconds * count:>9.3f}   {value:<14.6g} {'' if own is None else f'{own:.6g}'}")
    print(f"{'sum of the fastest peers':<60}{total:>9.3f}")
    print(f"{'ours, these suites, reading included':<60}{asked:>9.3f}   {total / asked:.1f} times faster")
    print(f"{f'ours, all suites, {len(result.table)} rows, reading included':<60}{ours:>9.3f}")
    record.add("card/asked", asked, ratio=total / asked)
    record.add("card/peers", total)
    record.add("card/all suites", ours)
    record.add("card/rows", len(result.table))


# ------------------------------------------------------------------------------------------------------- (b) pass


def likelihood(blocks: list[Any], labels: Any, threads: int) -> None:
    """Go through the rows once as the fit of a temperature does."""
    from analyze.kernels.fitting import moments_rows
    from analyze.kernels.statistics import spread_rows

    start = 0
    for block in blocks:
        rows, own = block.view(np.uint16), np.ascontiguousarray(labels[start : start + len(block)], np.int32)
        out = np.empty((4, len(block)))

        def work(first: int, stop: int, rows: Any = rows, own: Any = own, out: Any = out) -> int:
            moments_rows(rows, own, 0.75, out, first, stop)
            return -1

        spread_rows(work, len(block), threads)
        start += len(block)


def fused(args: argparse.Namespace, record: Recorder) -> None:
    """Time the fused pass on a decompressed store against reading and decompressing it."""
    from analyze.kernels import statistics as kernels
    from cache_schema import open_cache

    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder), "val", "id", args.images, args.classes, 0)
        store = open_cache(folder).store("m", "val")
        n = len(store)

        def read() -> list[Any]:
            return [store.centred_logits(start, start + 8192) for start in range(0, n, 8192)]

        blocks = read()
        reading, _ = median(read, 7)
        labels, centers = np.asarray(store.labels), store.logit_centers()
        threads = os.cpu_count() or 1
        out = kernels.RowStatistics.empty(n, 3)

        def work(temperatures: tuple[float, ...], gen: tuple[int, float] | None) -> None:
            for i, block in enumerate(blocks):
                here = slice(8192 * i, 8192 * i + len(block))
                kernels.image_statistics(
                    block,
                    centers=centers[here],
                    labels=labels[here],
                    temperatures=temperatures,
                    gen=gen,
                    threads=threads,
                    out=out,
                    offset=here.start,
                )

        work((1.0, 1.3, 50.0), (100, 0.1))
        plain, _ = median(lambda: work((1.0,), None), 7)
        with_gen, _ = median(lambda: work((1.0,), (100, 0.1)), 7)
        everything, _ = median(lambda: work((1.0, 1.3, 50.0), (100, 0.1)), 7)
        nll, _ = median(lambda: likelihood(blocks, labels, threads), 7)
    print(f"\n(b) one pass over {n:,} x {args.classes:,} centred logits, {threads} threads")
    print(f"{'reading and decompressing (one thread)':<60}{1e3 * reading:>9.1f} ms")
    record.add("pass/reading", 1e3 * reading)
    for row, name, seconds in (
        ("one temperature", "fused pass: all statistics at one temperature", plain),
        ("GEN", "the same and GEN (100 largest of 1,000)", with_gen),
        ("three temperatures", "the same at three temperatures", everything),
        ("NLL", "NLL and its three derivatives at one temperature", nll),
    ):
        print(f"{name:<60}{1e3 * seconds:>9.1f} ms   {seconds / reading:.2f} x reading")
        record.add(f"pass/{row}", 1e3 * seconds, ratio=seconds / reading)


# ----------------------------------------------------------------------------------------------------- (c) memory


MEMORY = """
import re, sys
from pathlib import Path
import cache_schema, scipy.optimize, scipy.special, scipy.fft
from analyze.evaluate import evaluate

def kib(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

evaluate(cache_schema.open_cache(sys.argv[2]))  # on a small cache: loads every kernel and every lazy import
base = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
evaluate(cache_schema.open_cache(sys.argv[1]))
print(kib("VmHWM") - base)
"""


def memory(args: argparse.Namespace, record: Recorder) -> None:
    """Measure peak memory over the imports, in a process of its own for n and 10 n images (Linux)."""
    print(f"\n(c) peak memory over the imports, {args.classes:,} classes")
    grown = []
    for n in (args.images, 10 * args.images):
        with tempfile.TemporaryDirectory() as folder:
            big, small = Path(folder) / "big", Path(folder) / "small"
            write_predictions(big, "val", "id", n, args.classes, 0)
            write_predictions(small, "val", "id", 200, args.classes, 0)
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, str(big), str(small)], capture_output=True, text=True, check=True
            )
        grown.append(int(done.stdout.split()[-1]) / 1024)
        print(f"{f'{n:,} images':<60}{grown[-1]:>9.0f} MiB")
    record.add("memory/n", grown[0])
    record.add("memory/10 n", grown[1])
    record.add("memory/growth", grown[1] / grown[0])


# ------------------------------------------------------------------------------------------------------ (d) study


def synthetic_summary(name: str, role: str, n: int, seed: int, images: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of a summary of plausible values; noise, so that they compress no better than real ones.

    Labels and keys are drawn from ``images``: every model was run on the same.
    """
    rng = np.random.default_rng(seed)
    f = np.float32
    confidence = rng.beta(3, 1.2, n).astype(f)
    right = rng.random(n) < confidence * 0.95
    label = np.full(n, -1, np.int32) if role == "ood" else images.integers(0, 1000, n, dtype=np.int32)
    top = rng.integers(0, 1000, (n, 5), dtype=np.int16)
    rank = np.where(right, 0, rng.integers(1, 50, n)).astype(np.int16)
    if role == "ood":
        rank[:] = -1
    else:
        top[right, 0] = label[right]
    noise = lambda scale: rng.normal(0, scale, n).astype(f)  # noqa: E731
    own = np.where(right, np.log(confidence), -np.abs(noise(3.0))).astype(f)
    columns = {
        "label": label, "valid": np.ones(n, bool), "top": top, "label_rank": rank, "confidence": confidence,
        "label_log_probability": own if role != "ood" else np.full(n, np.nan, f),
        "entropy": (3 * (1 - confidence) + np.abs(noise(0.1))).astype(f), "sum_squares": confidence**2,
        "margin": (confidence * rng.random(n)).astype(f), "max_logit": (10 * confidence + noise(1.0)).astype(f),
        "log_sum_exp": (10 * confidence + 1 + noise(1.0)).astype(f),
        "gen": (50 * (1 - confidence) + noise(1.0)).astype(f),
        "image_key": images.integers(-(2**62), 2**62, n),
    }  # fmt: skip
    scaled = np.clip(confidence**1.2, 0, 1).astype(f)
    columns |= {
        "label_mass": rng.random(n).astype(f), "label_count": np.maximum(rank + 1, 1).astype(np.int16),
        "set_sizes": rng.integers(0, 20, (n, 3), dtype=np.int16), "scaled_confidence": scaled,
        "scaled_label_log_probability": columns["label_log_probability"] * f(0.9), "scaled_sum_squares": scaled**2,
        "scaled_entropy": columns["entropy"] * f(1.1),
    }  # fmt: skip
    return columns


def write_study(root: Path, models: int) -> tuple[int, int]:
    """Write the summary stores of a whole study; returns images and bytes."""
    from cache_schema import DatasetCard, ModelCard, write_summary

    facts = {
        "temperature": 1.2, "split": {"fraction": 0.5, "seed": 0, "stratified": True, "n": 25_000}, "tau": 1.0,
        "energy_temperature": 1.0, "gen": [100, 0.1], "logits_kind": "logits", "n_classes": 1000,
        "aggregates": {f"classwise{k}": {"classwise_ece": 3e-4, "n": 25_000} for k in ("", "_held_out", "_scaled")},
        "conformal": {
            "alpha": 0.1, "quantiles": {"lac": "0.8", "aps": "0.9", "raps": "0.95"}, "penalty": 0.01,
            "free_ranks": 5, "n": 25_000,
        },
    }  # fmt: skip
    images = size = 0
    for m in range(models):
        for s, (name, (role, n)) in enumerate(STUDY_SETS.items()):
            card = {"id": name, "role": role, "n_classes": 1000, "distance": "far" if role == "ood" else ""}
            store = write_summary(
                root,
                model=ModelCard(id=f"model-{m:03d}", head_kind="linear"),
                dataset=DatasetCard(**card, digest=f"{s:064x}"),
                columns=synthetic_summary(name, role, n, 1000 * m + s, np.random.default_rng(s)),
                record={"facts": facts, "source_digest": f"{m:08x}{s:08x}"},
            )
            images, size = images + n, size + store.n_bytes()
    return images, size


def study(args: argparse.Namespace, record: Recorder) -> None:
    """Time every metric of a whole study from summary stores; stores that ``--folder`` holds already are taken."""
    from analyze.evaluate import evaluate
    from analyze.evaluate.engine import Running
    from analyze.settings import study_defaults
    from cache_schema import open_cache

    running = Running(processes=True)  # as 'analyze metrics' runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or temporary
        written = Path(folder) / "written.json"
        if not written.is_file():
            start = time.perf_counter()
            images, size = write_study(Path(folder), args.models)
            written.write_text(json.dumps([args.models, images, size, time.perf_counter() - start]))
        models, images, size, seconds = json.loads(written.read_text())
        print(
            f"\n(d) {models} models x {len(STUDY_SETS)} sets, {images:,} rows, {size / 1e9:.2f} GB of summaries"
            f" ({size / images:.0f} bytes an image), written in {seconds:.0f} s"
        )
        if args.replicates < 0:
            return
        evaluate(open_cache(folder), models=["model-000"])  # compiles
        start = time.perf_counter()
        table = evaluate(open_cache(folder), running=running).table
        seconds = time.perf_counter() - start
        print(f"{f'every metric, {len(table):,} rows':<60}{seconds:>9.1f} s   {seconds / models * 210:.0f} s for 210")
        if models == args.models:  # not those of a folder that another run wrote
            record.add("study/images", images / 1e6)
            record.add("study/size", size / 1e9)
            record.add("study/rows", len(table))
            record.add("study/every metric", seconds)
        if args.replicates:
            settings = study_defaults().updated("bootstrap", replicates=args.replicates)
            start = time.perf_counter()
            evaluate(open_cache(folder), settings=settings, running=running)
            seconds = time.perf_counter() - start
            text = f"the same with {args.replicates:,} bootstrap replicates"
            print(f"{text:<60}{seconds:>9.1f} s   {seconds / models * 210:.0f} s for 210")
            if models == args.models:
                record.add("study/bootstrap", seconds)


# ----------------------------------------------------------------------------------------------------- (e) growth


def growth(args: argparse.Namespace, record: Recorder) -> None:
    """Time the whole card as n grows tenfold."""
    from analyze.evaluate import evaluate
    from analyze.evaluate.cells import Cells
    from cache_schema import open_cache

    print("\n(e) seconds an image as n grows")
    for row, n in (("tenth of n", args.images // 10), ("n", args.images), ("10 n", 10 * args.images)):
        with tempfile.TemporaryDirectory() as folder:
            write_predictions(Path(folder), "val", "id", n, args.classes, 0)
            cache = open_cache(folder)
            evaluate(cache, only=["accuracy"])
            seconds, _ = median(lambda cache=cache: evaluate(cache, cells=Cells(None)), 2)
        print(f"{f'{n:,} images':<60}{seconds:>9.3f} s   {1e6 * seconds / n:.2f} us an image")
        record.add(f"growth/{row}", 1e6 * seconds / n)


def main() -> None:
    """Run the named part."""
    parts = {"card": card, "pass": fused, "memory": memory, "study": study, "growth": growth}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "all"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--ood", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=210)
    parser.add_argument("--replicates", type=int, default=1_000, help="0: no bootstrap; -1: only write the stores")
    parser.add_argument("--folder", help="keep the study here (4 GB), or take the one that is")
    args = parser.parse_args()
    import numba

    sizes: dict[str, tuple[int, ...]] = dict.fromkeys(("images", "classes", "ood", "models", "replicates"), ())
    record = Recorder("analysis", parser, args, sizes=sizes, other=f"numba {numba.__version__}")
    print(record.machine)
    for name, work in parts.items():
        if args.part in (name, "all"):
            work(args, record)
    print(json.dumps({"peak_mib": round(peak_kib() / 1024)}))
    record.write()


if __name__ == "__main__":
    main()
