"""The extraction pass, side by side in one run: against timm's own loader a model at a time, and against its limits.

    python benchmarks/extraction.py                  # eight small models on the CPU, then, where there is one, the GPU
    python benchmarks/extraction.py --device cuda    # ViT-B/32, ResNet-50 and ViT-L/14, random weights, on the GPU

Photograph-like JPEGs of 500 x 375 are made on the spot. On the CPU one thread computes and one process decodes, so that
a machine of two cores measures the pass and not the contention. Every repeat measures everything once, in turn, so that
a machine that gets slower for a while is slower for all; ratios within a repeat and their medians are what to quote.
Row (b) needs a core for decoding and one for the models; where others use them, read (g), which counts time
on a core instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Decoding processes import this file again, and need none of what follows.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import timm
    import torch
    from memory import peak_kib
    from photographs import photographs
    from record import Recorder
    from timm.data import create_dataset, create_loader, resolve_data_config

    import cache_schema
    import extract.passes.worker
    from extract.datasets import resolve, spec_from_table
    from extract.libraries import load, prepare
    from extract.models.base import Prepared
    from extract.passes.decode import Decoder
    from extract.passes.events import Event
    from extract.passes.worker import Worker
    from extract.planning.options import RunOptions
    from extract.planning.plan import make_plan
    from extract.zoo.model_list import parse_line

SMALL = (
    "test_vit", "test_vit2", "test_mambaout", "test_convnext", "test_byobnet", "test_convnext3", "test_efficientnet",
    "test_resnet",
)  # fmt: skip
LARGE = ("vit_base_patch32_clip_224", "resnet50", "vit_large_patch14_clip_224")
WANTED = {
    "cpu": {"a": ">= 4x", "b": "<= 1.15x", "c": "< 5%", "d": "<= 0.40x", "e": "flat"},
    "cuda": {"f": ">= 0.90"},
}


class Dropped:
    """A sink that keeps nothing: what a pass costs without writing."""

    def __init__(self, *_: object) -> None:
        self.append = self.finish = self.abort = lambda *_: None


class Bench:
    """The models, the images and how to run both.

    Parameters
    ----------
    args
        Of the command.
    folder
        For images and stores.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.root = args, folder, folder / "photographs"
        self.on_gpu = args.device != "cpu"
        self.names = LARGE[: args.models] if self.on_gpu else SMALL[: args.models]
        self.size = 224 if self.on_gpu else args.size
        self.batch = 256 if self.on_gpu else 32
        self.precision = "bf16" if self.on_gpu else "fp32"
        photographs(self.root, args.images, args.photographs or folder / "kept")
        self.dataset = resolve(
            spec_from_table("photographs", {"path": str(self.root), "labels": "none", "classes": "imagenet-1k"}, folder)
        )

    def prepared(self) -> list[Prepared]:
        """Return the models, which share one geometry."""
        same = f"num_classes=1000 input_size={self.size} crop_pct=0.9 interpolation=bicubic"
        lines = [f"timm:{name} allow_random=yes seed={i} {same} id={name}" for i, name in enumerate(self.names)]
        return [prepare(parse_line(line)[0]) for line in lines]

    def timm(self) -> float:
        """Do what a user would otherwise do: timm's loader and model, once a model, outputs kept with torch.save."""
        begun = time.perf_counter()
        for name in self.names:
            model = timm.create_model(name, num_classes=1000).eval().to(self.args.device)
            wanted = {"input_size": (3, self.size, self.size), "crop_pct": 0.9, "interpolation": "bicubic"}
            config = resolve_data_config(wanted, model=model)
            loader = create_loader(
                create_dataset("", str(self.root)), batch_size=self.batch, num_workers=self.args.workers,
                device=torch.device(self.args.device), persistent_workers=False,
                **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
            )  # fmt: skip
            outputs = []
            with torch.inference_mode():
                for images, _ in loader:
                    with self.autocast():
                        body = model.forward_features(images)
                        outputs.append((model.forward_head(body), model.forward_head(body, pre_logits=True)))
            torch.save(torch.cat([logits.float().cpu() for logits, _ in outputs]), self.folder / "logits.pt")
            torch.save(torch.cat([features.float().cpu() for _, features in outputs]), self.folder / "features.pt")
        return time.perf_counter() - begun

    def autocast(self) -> torch.autocast:
        """Return the precision in which models are run on this device."""
        device = torch.device(self.args.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def one_pass(self, cache: Path, pixels: Path | None = None, *, written: bool = True) -> dict[str, Any]:
        """Run the product over all models; return the recorded shares, its wall time and the bytes of the logits.

        ``loop`` is the time from the first batch to the last seal; what is not ``written`` has no recorded shares.
        """
        options = RunOptions(
            cache=cache, device=self.args.device, precision=self.precision, batch_size=self.batch,
            workers=self.args.workers, pixel_cache=pixels,
        )  # fmt: skip
        begun = time.perf_counter()
        (unit,) = make_plan(self.prepared(), [self.dataset], options).units()
        parts: list[Event] = []
        clock: dict[str, float] = {}
        cpu: dict[str, float] = {}

        def listen(event: Event) -> None:
            parts.append(event)
            # The last line of rates is the finished pass's, the last "done" the last seal's.
            clock[event.kind], cpu[event.kind] = time.perf_counter(), time.process_time()

        sink = extract.passes.worker.StoreSink
        extract.passes.worker.StoreSink = sink if written else Dropped
        worker = Worker(options, listen)
        try:
            worker.run(unit)
        finally:
            worker.close()
            extract.passes.worker.StoreSink = sink
        wall = time.perf_counter() - begun
        assert not [event for event in parts if event.kind == "failed"], parts
        took = {"wall": wall, "loop": clock["done"] - clock["pass"], "cpu": cpu["rates"] - cpu["pass"]}
        if not written:
            return took
        store = cache_schema.open_cache(cache).store(self.names[0], "photographs")
        logits = sum(file.stat().st_size for file in (store.path / "logits").rglob("*") if file.is_file())
        return {**store.record["speed"], **took, "logits_bytes": logits}

    def decode(self) -> float:
        """Time decoding alone: every image once, nothing done with it; by workers that are running already."""
        geometries = [self.prepared()[0].preprocessing.geometry]
        with Decoder(self.args.workers) as decoder:
            once = lambda: [None for _ in decoder.batches(self.dataset, geometries, self.batch)]  # noqa: E731
            each = [seconds(once) for _ in range(2)]
        return each[-1]

    def forwards(self) -> tuple[float, float]:
        """Time the forward passes alone: each of timm's own models in turn, normalisation included, nothing kept.

        Returns wall time and time on a core.
        """
        total = total_cpu = 0.0
        for prepared in self.prepared():
            module: Any = load(prepared, device=self.args.device, precision=self.precision).module
            pixels = torch.randint(0, 256, (self.batch, 3, self.size, self.size), dtype=torch.uint8)
            layout = torch.channels_last if self.on_gpu else torch.contiguous_format  # what the module is in
            pixels = pixels.to(self.args.device, memory_format=layout)
            with torch.inference_mode(), self.autocast():
                for images in (self.batch, self.args.images):
                    self.synchronize()
                    begun, on_core = time.perf_counter(), time.process_time()
                    for start in range(0, images, self.batch):
                        module(pixels[: min(self.batch, images - start)].float().div_(255).sub_(0.5).div_(0.5))
                    self.synchronize()
                    lasted, cpu = time.perf_counter() - begun, time.process_time() - on_core
            total, total_cpu = total + lasted, total_cpu + cpu
        return total, total_cpu

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def repeats(self) -> Iterator[dict[str, float]]:
        """Measure everything in turn, as often as asked for."""
        pixels, cache = self.folder / "pixels", self.folder / "cache"
        for repeat in range(self.args.repeats):
            theirs, ours = self.timm(), self.one_pass(cache)
            dropped = self.one_pass(self.folder / f"dropping-{repeat}", written=False)
            decode, (forwards, on_core) = self.decode(), self.forwards()
            self.one_pass(self.folder / f"filling-{repeat}", pixels)
            decoded = self.one_pass(self.folder / f"decoded-{repeat}", pixels)
            print(
                f"run {repeat + 1}: timm x {len(self.names)} {theirs:.1f} s, one pass {ours['wall']:.1f} s"
                f" ({ours['seconds']:.1f} s of it in the loop), decode alone {decode:.1f} s, forwards alone"
                f" {forwards:.1f} s, a pass over decoded pixels {decoded['seconds']:.1f} s"
            )
            yield {
                "a": theirs / ours["wall"],
                "b": ours["seconds"] / max(decode, forwards),
                "c": 1 - dropped["loop"] / ours["loop"],
                "c_cpu": ours["write_cpu_share"],
                "c_wall": ours["write_share"],
                "c_wait": ours["write_wait_share"],
                "d": ours["logits_bytes"] / (self.folder / "logits.pt").stat().st_size,
                "f": forwards / decoded["seconds"],
                "g": decoded["cpu"] / on_core,
                "rate": ours["images_per_second"] * len(self.names),
                "busy": decoded["device_share"],
                "timm": theirs,
                "pass": ours["wall"],
                "loop": ours["seconds"],
                "decode": decode,
                "forwards": forwards,
                "decoded": decoded["seconds"],
            }
            for path in (cache, pixels, *self.folder.glob("*ing-*"), *self.folder.glob("decoded-*")):
                shutil.rmtree(path, ignore_errors=True)


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def memory_of(n: int, args: argparse.Namespace) -> int:
    """Return the peak memory of a process that runs a pass over n images, in KiB."""
    options = {"--memory-of": n, "--models": 2, "--size": args.size, "--workers": args.workers, "--device": args.device}
    if args.photographs:
        options["--photographs"] = args.photographs
    words = [str(word) for pair in options.items() for word in pair]
    return int(subprocess.check_output([sys.executable, __file__, *words], text=True).split()[-1])


def main() -> int:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="default: 4,000; 10,000 on a GPU")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--size", type=int, default=48, help="input size of the small models")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, help="decoding processes (default: 1; all cores but one on a GPU)")
    parser.add_argument("--photographs", type=Path, help="make them in this folder and keep them")
    parser.add_argument("--json", type=Path, help="write every repeat's figures here")
    parser.add_argument("--memory-of", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.exit(2, "extraction.py: torch sees no CUDA device here\n")
    if not args.memory_of:
        sizes = {"images": (10_000 if on_gpu else 4000,), "models": (3,) if on_gpu else (), "size": (), "workers": ()}
        versions = f"torch {torch.__version__}, timm {timm.__version__}"
        device = f"{torch.cuda.get_device_name()}, " if on_gpu else ""
        record = Recorder("extraction", parser, args, sizes=sizes, other=device + versions)
    args.images = args.memory_of or args.images or (10_000 if on_gpu else 4000)
    args.workers = args.workers or (max((os.cpu_count() or 2) - 1, 1) if on_gpu else 1)
    torch.set_num_threads(os.cpu_count() or 1 if on_gpu else 1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # for the bare forward too
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        if args.memory_of:
            bench.one_pass(Path(folder) / "cache")
            print(peak_kib())
            return 0
        runs = list(bench.repeats())
    few, many = max(args.images // 4, 32), args.images
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    medians["e"] = memory_of(many, args) / memory_of(few, args)
    for key, figure in medians.items():
        share = key.startswith("c") or key == "busy"
        record.add(f"{args.device}/{key}", 100 * figure if share else figure)
    if args.json:
        args.json.write_text(json.dumps({"runs": runs, "medians": medians}, indent=1))
    table = {
        "a": (f"timm's loader and model, {len(bench.names)} times / one pass", f"{medians['a']:.2f}x"),
        "b": ("the pass / max(decode once, sum of forwards)", f"{medians['b']:.2f}x"),
        "c": ("share of the pass, sealing included, that is not there without writing", f"{medians['c']:.1%}"),
        "c_wait": ("recorded: share of the loop's time that it waits for the writer", f"{medians['c_wait']:.1%}"),
        "c_cpu": ("recorded: share that the writer's thread is on a core", f"{medians['c_cpu']:.1%}"),
        "c_wall": ("recorded: share that it is busy, waiting for a core included", f"{medians['c_wall']:.1%}"),
        "d": ("logits on disk / torch.save of float32", f"{medians['d']:.2f}x"),
        "e": (f"peak memory of the parent at {many} / {few} images", f"{medians['e']:.2f}x"),
        "f": ("sum of forwards / the pass over decoded pixels", f"{medians['f']:.2f}"),
        "g": ("the same pass / sum of forwards, time on a core", f"{medians['g']:.2f}x"),
    }
    row = "{:<76} {:>8} {:>10}".format
    print(row("", "measured", "wanted"))
    for key, (what, measured) in table.items():
        print(row(f"({key[0]}) {what}", measured, WANTED[args.device].get(key, "")))
    print(f"{medians['rate']:.0f} images x models a second; device busy {medians['busy']:.0%} over decoded pixels")
    machine = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    record.write()
    if not on_gpu and torch.cuda.is_available():
        return subprocess.call([sys.executable, __file__, "--device", "cuda"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
