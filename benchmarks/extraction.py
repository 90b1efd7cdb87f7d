"""The extraction pass, side by side in one run: against timm's own loader a model at a time, and against its limits.

    python benchmarks/extraction.py [--images 600] [--models 8] [--device cpu|cuda] [--gpu-models]

Photograph-like JPEGs of 500 x 375 are made on the spot. On the CPU one thread computes and one process decodes, so that
a machine of two cores measures the pass and not the contention. Ratios and medians are what to quote.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config

import cache_schema
from extract.datasets import resolve, spec_from_table
from extract.decode import Decoder
from extract.events import Event
from extract.model_list import parse_line
from extract.models import load, prepare
from extract.options import RunOptions
from extract.plan import make_plan
from extract.worker import Worker

SMALL = ("test_efficientnet", "test_resnet", "test_vit", "test_convnext", "test_mambaout", "test_byobnet", "test_vit2", "test_nfnet")  # fmt: skip
LARGE = ("vit_base_patch32_clip_224", "resnet50", "vit_large_patch14_clip_224")


def photographs(root: Path, n: int) -> None:
    """Write n JPEGs of 500 x 375 with the detail, and so the decoding cost, of photographs."""
    rng = np.random.default_rng(0)
    (root / "all").mkdir(parents=True)
    for index in range(n):
        layers = [
            np.asarray(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((500, 375)), np.float32)
            for side in (4, 16, 64, 200)
        ]
        pixels = sum(weight * layer for weight, layer in zip((0.5, 0.25, 0.15, 0.1), layers, strict=True))
        Image.fromarray(np.asarray(pixels, np.uint8)).save(root / "all" / f"{index:05}.jpg", quality=90)


def lines(names: tuple[str, ...], size: int) -> list[str]:
    """Return model-list lines that share one geometry."""
    return [
        f"timm:{name} allow_random=yes seed={i} num_classes=1000 input_size={size} crop_pct=0.9 interpolation=bicubic id={name}"
        for i, name in enumerate(names)
    ]


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def with_timm(names: tuple[str, ...], size: int, root: Path, device: str, batch: int, workers: int) -> None:
    """Do what a user would otherwise do: timm's loader and model, once a model, outputs kept with torch.save."""
    for name in names:
        model = timm.create_model(name, num_classes=1000).eval().to(device)
        config = resolve_data_config({"input_size": (3, size, size), "crop_pct": 0.9, "interpolation": "bicubic"}, model=model)
        loader = create_loader(
            create_dataset("", str(root)), batch_size=batch, use_prefetcher=False, num_workers=workers,
            persistent_workers=False, is_training=False, **{k: config[k] for k in ("input_size", "interpolation", "mean", "std", "crop_pct")},
        )  # fmt: skip
        outputs = []
        with torch.inference_mode():
            for images, _ in loader:
                body = model.forward_features(images.to(device))
                outputs.append((model.forward_head(body).cpu(), model.forward_head(body, pre_logits=True).cpu()))
        torch.save(torch.cat([o[0] for o in outputs]), root.parent / "logits.pt")
        torch.save(torch.cat([o[1] for o in outputs]), root.parent / "features.pt")


def main() -> int:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="input size of the small models")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gpu-models", action="store_true", help="ViT-B/32, ResNet-50 and ViT-L/14 in place of small ones")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory-of", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1 if args.device == "cpu" else os.cpu_count() or 1)
    names = LARGE if args.gpu_models else SMALL[: args.models]
    size = 224 if args.gpu_models else args.size
    batch = 32 if args.device == "cpu" else 256
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        photographs(root, args.memory_of or args.images)
        if args.memory_of:
            one_pass(names, size, root, Path(folder) / "cache", args, batch)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return 0
        compare(names, size, root, Path(folder), args, batch)
    return 0


def one_pass(
    names: tuple[str, ...], size: int, root: Path, cache: Path, args: argparse.Namespace, batch: int
) -> dict[str, float]:
    """Run the product over all models; return the recorded shares of the last store, and its wall time."""
    prepared = [prepare(parse_line(line)[0]) for line in lines(names, size)]
    dataset = resolve(spec_from_table("photographs", {"path": str(root), "labels": "none", "classes": "imagenet-1k"}, root))
    precision = "fp32" if args.device == "cpu" else "bf16"
    options = RunOptions(
        cache=cache, device=args.device, precision=precision, batch_size=batch, workers=args.workers
    )
    units = make_plan(prepared, [dataset], options).units()
    assert len(units) == 1, "the models share one geometry"
    told: list[Event] = []
    worker = Worker(options, told.append)
    begun = time.perf_counter()
    try:
        worker.run(units[0])
    finally:
        worker.close()
    wall = time.perf_counter() - begun
    assert not [event for event in told if event.kind == "failed"], told
    store = cache_schema.open_cache(cache).store(names[0], "photographs")
    logits = sum(f.stat().st_size for f in (store.path / "logits").rglob("*") if f.is_file())
    return {**store.record["speed"], "wall": wall, "logits_bytes": logits}


def bare_decode(names: tuple[str, ...], size: int, root: Path, args: argparse.Namespace, batch: int) -> float:
    """Time decoding alone: every image once, nothing done with it; the decoder is running already."""
    dataset = resolve(spec_from_table("photographs", {"path": str(root), "labels": "none"}, root))
    geometry = prepare(parse_line(lines(names[:1], size)[0])[0]).preprocessing.geometry
    with Decoder(args.workers, batch * size * size * 3) as decoder:
        for _ in decoder.batches(dataset, geometry, batch):
            break
        return seconds(lambda: [None for _ in decoder.batches(dataset, geometry, batch)])


def bare_forwards(names: tuple[str, ...], size: int, args: argparse.Namespace, batch: int) -> float:
    """Time the forward passes alone, of every model over as many images, already on the device."""
    precision = "fp32" if args.device == "cpu" else "bf16"
    total = 0.0
    for line in lines(names, size):
        model = load(prepare(parse_line(line)[0]), device=args.device, precision=precision)
        pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=args.device)
        with torch.inference_mode():
            model.forward(pixels)
            synchronize(args.device)
            begun = time.perf_counter()
            for start in range(0, args.images, batch):
                model.forward(pixels[: min(batch, args.images - start)])
            synchronize(args.device)
            total += time.perf_counter() - begun
    return total


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def compare(names: tuple[str, ...], size: int, root: Path, folder: Path, args: argparse.Namespace, batch: int) -> None:
    """Measure in turn, several times, and print medians of ratios."""
    against_timm, against_limit, speeds = [], [], []
    for repeat in range(args.repeats):
        theirs = seconds(lambda: with_timm(names, size, root, args.device, batch, args.workers))
        ours = one_pass(names, size, root, folder / f"cache-{repeat}", args, batch)
        decode, forwards = bare_decode(names, size, root, args, batch), bare_forwards(names, size, args, batch)
        against_timm.append(theirs / ours["wall"])
        against_limit.append(ours["seconds"] / max(decode, forwards))
        speeds.append(ours)
        print(
            f"run {repeat + 1}: timm x {len(names)} {theirs:.1f} s, one pass {ours['wall']:.1f} s (in the loop {ours['seconds']:.1f} s),"
            f" decode alone {decode:.1f} s, forwards alone {forwards:.1f} s"
        )
    logits = folder / "logits.pt"
    last = speeds[-1]
    memory = [memory_of(n, args) for n in (args.images // 2, args.images * 2)]
    row = "{:<58} {:>8} {:>10}".format
    print(row("", "measured", "wanted"))
    print(row(f"(a) timm's loader and model, {len(names)} times / one pass", f"{statistics.median(against_timm):.2f}x", ">= 4x"))
    print(row("(b) the pass / max(decode once, sum of forwards)", f"{statistics.median(against_limit):.2f}x", "<= 1.15x"))
    print(row("(c) share of time spent writing (in its own thread)", f"{last['write_share']:.1%}", "< 5%"))
    print(row("(d) logits on disk / torch.save of float32", f"{last['logits_bytes'] / logits.stat().st_size:.2f}x", "<= 0.40x"))
    print(row(f"(e) peak memory at {args.images * 2} / {args.images // 2} images", f"{memory[1] / memory[0]:.2f}x", "flat"))
    print(f"{last['images_per_second'] * len(names):.0f} images x models a second; models busy {last['forward_share']:.0%}")


def memory_of(n: int, args: argparse.Namespace) -> int:
    """Return the peak memory of a process that runs a pass over n images, in KiB."""
    command = [sys.executable, __file__, "--memory-of", str(n), "--models", "2", "--size", str(args.size), "--workers", str(args.workers)]
    return int(subprocess.check_output(command, text=True).split()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
