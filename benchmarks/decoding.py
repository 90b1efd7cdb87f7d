"""One decode for all geometries, side by side in one run: against a pass for each geometry, and against its limit.

    python benchmarks/decoding.py                 # 4,000 images, three repeats
    python benchmarks/decoding.py --parts         # where the time of decoding an image goes

Twelve models of six geometries over JPEGs of 500 x 375: each model is a mean over patches and two small layers, so that
decoding binds. One process decodes, one thread computes. Every repeat measures everything once, in turn; ratios are
taken within a repeat. Where others use the cores, read the ratios of time on a core, of this process and the one that
decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from photographs import photograph, photographs
from PIL import Image
from record import Recorder

from extract.datasets.images import decode_rgb
from extract.passes import image_rows
from extract.passes.shaping import WORTH_SECONDS, Shaper, load_kernels
from extract.preprocess import Geometry

WORTH = "CLOSERLOOK_BENCHMARK_WORTH"
if WORTH in os.environ:  # decoding processes import this file again
    image_rows._shaper = Shaper(worth=float(os.environ[WORTH]))

GEOMETRIES = (
    (224, 0.875, "bicubic"), (224, 0.875, "bilinear"), (224, 0.9, "bicubic"), (224, 0.95, "bicubic"),
    (224, 1.0, "bicubic"), (256, 0.9, "bicubic"),
)  # fmt: skip
MODELS = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(32)
        self.mid, self.head = nn.LazyLinear(64), nn.Linear(64, 1000)
    def forward(self, x):
        return self.head(torch.relu(self.mid(self.pool(x).flatten(1))))

def made(seed, side, share, interpolation):
    torch.manual_seed(seed)
    module = Tiny()
    module(torch.zeros(1, 3, side, side))
    pre = {"input_size": side, "crop_pct": share, "interpolation": interpolation, "mean": 0.5, "std": 0.5}
    return dict(module=module, preprocessing=pre)
"""
BATCH = 32


class Bench:
    """The images, the models, and the ways to run them.

    Parameters
    ----------
    n_images
        JPEGs of 500 x 375.
    folder
        For images, models and stores.
    """

    def __init__(self, n_images: int, folder: Path) -> None:
        from extract.datasets import resolve, spec_from_table
        from extract.libraries import prepare
        from extract.zoo.model_list import parse_line

        self.folder, root = folder, folder / "photographs"
        photographs(root, n_images, folder / "kept")
        table = {"path": str(root), "labels": "none", "classes": "imagenet-1k"}
        self.dataset = resolve(spec_from_table("photographs", table, folder))
        calls = [f"def m{2 * i + k}(): return made({2 * i + k}, {', '.join(map(repr, way))})"
                 for i, way in enumerate(GEOMETRIES) for k in range(2)]  # fmt: skip
        (folder / "models.py").write_text(MODELS + "\n".join(calls))
        lines = [f"python:{folder / 'models.py'}:m{i} id=m{i} classes=imagenet-1k" for i in range(len(calls))]
        self.models = [prepare(parse_line(line)[0]) for line in lines]
        self.geometries = list(dict.fromkeys(model.preprocessing.geometry for model in self.models))
        assert len(self.geometries) == len(GEOMETRIES)

    def run(self, cache: str, *, apart: bool) -> tuple[float, float]:
        """Run all models into stores, together or a geometry at a time; return seconds of the passes, and on a core."""
        import cache_schema
        from extract.passes.worker import Worker
        from extract.planning.options import RunOptions
        from extract.planning.plan import make_plan

        options = RunOptions(cache=self.folder / cache, batch_size=BATCH, workers=1)
        groups = [[m for m in self.models if m.preprocessing.geometry == way] for way in self.geometries]
        failed: list[str] = []
        begun = on_core()
        for models in groups if apart else [self.models]:
            worker = Worker(options, lambda event: failed.append(event.text) if event.kind == "failed" else None)
            try:
                for unit in make_plan(models, [self.dataset], options).units():
                    worker.run(unit)
            finally:
                worker.close()
        assert not failed, failed
        stores = cache_schema.open_cache(self.folder / cache).stores("predictions")
        speeds = {store.model.id: store.record["speed"]["seconds"] for store in stores}
        assert len(speeds) == len(self.models)
        each = [max(speeds[model.card.id] for model in models) for models in groups]
        return (sum(each) if apart else max(each)), on_core() - begun

    def decode(self) -> tuple[float, float]:
        """Time decoding once and resizing alone, nothing done with it; return seconds, and on a core."""
        from extract.passes.decode import Decoder

        begun = on_core()
        with Decoder(1) as decoder:
            decoder.start(self.geometries, BATCH)
            at = time.perf_counter()
            for _ in decoder.batches(self.dataset, self.geometries, BATCH):
                pass
            lasted = time.perf_counter() - at
        return lasted, on_core() - begun

    def forwards(self) -> float:
        """Time the forward passes alone."""
        import torch

        from extract.libraries import load

        total = 0.0
        for prepared in self.models:
            model = load(prepared)
            pixels = torch.zeros((BATCH, 3, *prepared.preprocessing.geometry.output_size), dtype=torch.uint8)
            with torch.inference_mode():
                model.forward(pixels)
                begun = time.perf_counter()
                for _ in range(0, len(self.dataset), BATCH):
                    model.forward(pixels)
                total += time.perf_counter() - begun
        return total


def on_core() -> float:
    """Return seconds on a core of this process and of those that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def parts() -> dict[str, float]:
    """Return milliseconds on a core of an image, by what is done; the median of seven rounds of 40 images."""
    files = []
    for seed in range(40):
        out = BytesIO()
        photograph(np.random.default_rng(seed)).save(out, "JPEG", quality=95)
        files.append(out.getvalue())
    images = [decode_rgb(file) for file in files]
    kernels = load_kernels()
    assert kernels is not None
    ways = [Geometry("shortest", (int(s / p),) * 2, (s, s), name) for s, p, name in GEOMETRIES]
    outs = [np.empty((*way.output_size, 3), np.uint8) for way in ways]

    def drafted(mode: str, size: tuple[int, int] | None) -> Callable[[], None]:
        def run() -> None:
            for file in files:
                image = Image.open(BytesIO(file))
                image.draft(mode, size)
                image.load()

        return run

    def compiled(some: slice) -> Callable[[], None]:
        def run() -> None:
            for image in images:
                shape = kernels(image)
                for way, out in zip(ways[some], outs[some], strict=True):
                    shape(way, out)

        return run

    def pillow() -> None:
        for image in images:
            for way, out in zip(ways, outs, strict=True):
                out[...] = way(image)

    tasks: dict[str, Callable[[], None]] = {
        "eighth": drafted("YCbCr", (62, 46)), "ycbcr": drafted("YCbCr", None), "rgb": drafted("RGB", None),
        "decode": lambda: [decode_rgb(file) for file in files] and None, "pillow": pillow,
        "one": compiled(slice(0, 1)), "six": compiled(slice(None)),
    }  # fmt: skip
    rounds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(8):
        for name, task in tasks.items():
            begun = time.thread_time()
            task()
            rounds[name].append((time.thread_time() - begun) * 1000 / len(files))
    took = {name: statistics.median(each[1:]) for name, each in rounds.items()}
    return {
        "entropy decoding": took["eighth"],
        "inverse transform": took["ycbcr"] - took["eighth"],
        "decoding to RGB": took["decode"],
        "colour conversion": took["rgb"] - took["ycbcr"],
        "opening": took["decode"] - took["rgb"],
        "Pillow": took["pillow"],
        "compiled": took["six"],
        "the first compiled": took["one"],
    }


LABELS = {
    "entropy decoding": "entropy decoding (decoding at an eighth of the size)",
    "inverse transform": "inverse transform and upsampling",
    "decoding to RGB": "decoding to RGB, all of it",
    "opening": "opening, and what else Pillow does",
    "Pillow": "six resizes and crops by Pillow, copied out",
    "compiled": "six resizes and crops compiled, written in place",
    "the first compiled": "the first of them, which turns the image",
}
"""What is printed of a part, where that is not its name."""


def main() -> int:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="only where the time of an image goes")
    parser.add_argument("--json", type=Path, help="write every repeat's figures here")
    args = parser.parse_args()
    if args.parts:
        record = Recorder("decoding", parser, args, sizes={})
        for name, took in parts().items():
            print(f"{LABELS.get(name, name):<60} {took:6.2f} ms")
            if took > 0:
                record.add(f"parts/{name}", took)
            else:  # a difference of two times
                record.add(f"parts/{name}", None, detail="below the noise")
        record.write()
        return 0
    import torch

    torch.set_num_threads(1)
    record = Recorder("decoding", parser, args, sizes={})
    runs, times = [], []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.images, Path(folder))
        for repeat in range(args.repeats):
            os.environ[WORTH] = "inf"
            before = bench.run(f"before-{repeat}", apart=True)
            os.environ[WORTH] = str(WORTH_SECONDS * args.images / 4000)  # fewer images, loaded as much earlier
            apart, ours = bench.run(f"apart-{repeat}", apart=True), bench.run(f"ours-{repeat}", apart=False)
            decode, forwards = bench.decode(), bench.forwards()
            print(
                f"run {repeat + 1}: a pass for each geometry {before[0]:.1f} s by Pillow, {apart[0]:.1f} s compiled;"
                f" one decode {ours[0]:.1f} s; decoding alone {decode[0]:.1f} s, forwards {forwards:.1f} s"
            )
            runs.append({
                "before / ours": before[0] / ours[0], "apart / ours": apart[0] / ours[0],
                "ours / limit": ours[0] / max(decode[0], forwards),
                "before / ours, on a core": before[1] / ours[1], "apart / ours, on a core": apart[1] / ours[1],
            })  # fmt: skip
            seconds = {"before": before, "apart": apart, "ours": ours, "decode": decode, "forwards": (forwards, 0.0)}
            times.append({name: took for name, (took, _) in seconds.items()})
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    wanted = {"before / ours": ">= 2x", "ours / limit": "<= 1.15x"}
    for name, figure in medians.items():
        print(f"{name:<30} {figure:6.2f}x   {wanted.get(name, '')}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.images} images")
    group = "4,000 images"
    for found in (medians, {name: statistics.median(one[name] for one in times) for name in times[0]}):
        for name, figure in found.items():
            record.add(f"{group}/{name.replace('/', 'over').replace('ours', 'one decode')}", figure)
    record.write()
    if args.json:
        args.json.write_text(json.dumps({"runs": runs, "medians": medians}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
