"""A small dataset, and geometries that harm, report on and slow down the process that decodes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cache_schema.format.records import DatasetCard
from extract.datasets.base import Dataset, manifest_digest
from extract.passes.decode import Decoder
from extract.preprocess import Geometry

GEOMETRY = Geometry("shortest", (20, 20), (16, 16), "bicubic")
N = 37


@dataclass(frozen=True)
class Harmful(Geometry):
    """Kills or hangs its process on an image whose first pixel says so."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        red, green, blue = image.getpixel((0, 0))
        if (red, green, blue) == (1, 2, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if (red, green, blue) == (3, 2, 1):
            time.sleep(600)
        return super().__call__(image)


@dataclass(frozen=True)
class Reporting(Geometry):
    """Reports its process: spawned, has torch, is another than the one that decodes nothing."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        out = super().__call__(image).copy()
        spawned = multiprocessing.get_start_method() == "spawn"
        out[0, 0] = spawned, "torch" in sys.modules, multiprocessing.parent_process() is not None
        return out


@dataclass(frozen=True)
class Owned(Geometry):
    """Writes down which process decoded an image, and takes a while over each."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        time.sleep(0.05)
        out = super().__call__(image).copy()
        out[0, 0] = os.getpid() >> 16, os.getpid() >> 8 & 255, os.getpid() & 255
        return out


@dataclass(frozen=True)
class Victim(Geometry):
    """Has its process killed, the first few times that it is used."""

    log: str = ""
    times: int = 0

    def __call__(self, image: Image.Image) -> np.ndarray:
        path = Path(self.log)
        if not path.exists() or path.stat().st_size < self.times:
            with path.open("ab") as file:
                file.write(b"!")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


@dataclass(frozen=True)
class Counting(Geometry):
    """Adds a byte to a file for each image."""

    log: str = ""

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = super().__call__(image)
        with Path(self.log).open("ab") as file:
            file.write(b"!")
        return pixels


@dataclass(frozen=True)
class Slow(Geometry):
    """Takes its time without taking a core."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        time.sleep(0.04)
        return super().__call__(image)


def few_images(root: Path) -> Dataset:
    """Write N small pictures into a folder."""
    rng = np.random.default_rng(0)
    paths, sizes = [], []
    for index in range(N):
        path = root / f"{index:03}.png"
        Image.fromarray(rng.integers(0, 255, (24, 30, 3), np.uint8)).save(path)
        paths.append(path.name)
        sizes.append(path.stat().st_size)
    return make(root, paths, sizes)


def make(root: Path, paths: list[str], sizes: list[int]) -> Dataset:
    labels = np.full(len(paths), -1, np.int32)
    byte_sizes = np.array(sizes, np.int64)
    digest = manifest_digest(paths, labels, byte_sizes)
    card = DatasetCard(id="set", role="ood", digest=digest, n_images=len(paths))
    return Dataset(card=card, root=root, paths=tuple(paths), labels=labels, sizes=byte_sizes)


def replaced(dataset: Dataset, row: int, data: bytes) -> Dataset:
    (dataset.root / dataset.paths[row]).write_bytes(data)
    sizes = dataset.sizes.tolist()
    sizes[row] = len(data)
    return make(dataset.root, list(dataset.paths), sizes)


def coloured(colour: tuple[int, int, int]) -> bytes:
    out = BytesIO()
    Image.new("RGB", (24, 24), colour).save(out, "PNG")
    return out.getvalue()


Decoded = tuple[np.ndarray, np.ndarray, dict[int, str]]


def decoded(dataset: Dataset, workers: int, batch_size: int, geometry: Geometry = GEOMETRY, **limits: float) -> Decoded:
    (found,) = decoded_together(dataset, workers, batch_size, [geometry], **limits)
    return found


def decoded_together(
    dataset: Dataset, workers: int, batch_size: int, geometries: list[Geometry], **limits: float
) -> list[Decoded]:
    """Return pixels, validity and problems at each geometry."""
    with Decoder(workers, **limits) as decoder:
        batches = [
            (b.start, [(view.pixels.copy(), view.valid, view.problems) for view in b.views])
            for b in decoder.batches(dataset, geometries, batch_size)
        ]
    assert [start for start, _ in batches] == list(range(0, len(dataset), batch_size))
    return [
        (
            np.concatenate([views[i][0] for _, views in batches]),
            np.concatenate([views[i][1] for _, views in batches]),
            dict(problem for _, views in batches for problem in views[i][2]),
        )
        for i in range(len(geometries))
    ]
