"""The compiled resize gives Pillow's bytes, whatever the sizes, the filter and the part that is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.passes import shaping
from extract.passes.pillow_memory import words_of
from extract.passes.shaping import Kernels, Shaper, load_kernels, shape_all
from extract.preprocess import INTERPOLATIONS, Geometry

FILTERS = sorted(set(INTERPOLATIONS) - {"nearest"})
sides = st.integers(1, 120)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = load_kernels()
    if found is None:
        pytest.skip("this machine or this Pillow is another than the kernels were written after")
    return found


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Return noise over coarse shapes, so that sums reach both ends of a byte."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2, (height // 5 + 1, width // 5 + 1, 3)).repeat(5, 0).repeat(5, 1)[:height, :width] * 255
    noise = rng.integers(0, 256, (height, width, 3))
    return Image.fromarray(np.where(rng.random((height, width, 1)) < 0.5, coarse, noise).astype(np.uint8))


@settings(max_examples=400)
@given(
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.sampled_from(FILTERS),
    st.integers(0, 2**32),
)
@example((90, 40), (30, 13), (1, 1), "bicubic", 0)
@example((100, 60), (20, 20), (1, 1), "lanczos", 0)  # where columns just do not come first
@example((101, 60), (20, 20), (1, 1), "lanczos", 0)  # and where they just do
def test_the_same_bytes_as_pillow(kernels: Kernels, size, resized, kept, name: str, seed: int) -> None:
    image = picture(*size, seed)
    crop = tuple(max(1, round(share * side)) for share, side in zip(kept, resized, strict=True))
    geometry = Geometry("squash", resized, crop, name)  # type: ignore[arg-type]
    out = np.full((*crop, 3), 77, np.uint8)
    kernels(image)(geometry, out)
    np.testing.assert_array_equal(out, geometry(image))


@settings(max_examples=100)
@given(st.tuples(sides, sides), sides, st.sampled_from(["shortest", "longest"]), st.integers(0, 2**32))
def test_the_same_bytes_where_the_aspect_is_kept(kernels: Kernels, size, side: int, mode, seed: int) -> None:
    image = picture(*size, seed)
    geometry = Geometry(mode, (side, side), (side, side), "bicubic")
    out = np.zeros((side, side, 3), np.uint8)
    want = np.zeros_like(out)
    # Images so thin that a side vanishes have the same reason.
    assert shape_all(kernels(image), [geometry], [out]) == shape_all(Shaper(1e9)(image), [geometry], [want])
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("size", [(375, 500), (1, 1), (7, 3), (2100, 2200)])
def test_pixels_are_seen_where_they_lie(size: tuple[int, int]) -> None:
    """The largest is in several pieces of memory, and copied."""
    image = picture(*size, 0)
    words, _owner = words_of(image)
    assert words.shape == size
    np.testing.assert_array_equal(words.copy().view(np.uint8).reshape(*size, 4)[..., :3], np.asarray(image))


def test_kernels_are_not_used_where_they_would_give_other_bytes(monkeypatch: pytest.MonkeyPatch, kernels) -> None:
    """Another Pillow may weigh differently; another kind of processor may round differently."""
    resize = Image.Image.resize
    shifted = lambda image, size, *rest: resize(image, size, *rest).point(lambda value: min(value + 1, 255))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", shifted)
        assert load_kernels() is None
    monkeypatch.setattr(shaping, "platform", SimpleNamespace(machine=lambda: "aarch64"))
    assert load_kernels() is None


def test_kernels_are_loaded_when_they_pay_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    monkeypatch.setattr(shaping, "load_kernels", lambda: loaded.append(1))
    shaper, geometry, image = Shaper(worth=1e9), Geometry("squash", (9, 9), (9, 9)), picture(20, 30, 0)
    out = np.empty((9, 9, 3), np.uint8)
    for _ in range(3):
        shaper(image)(geometry, out)
    assert loaded == []
    shaper = Shaper(worth=1e-9)
    for _ in range(3):
        shaper(image)(geometry, out)
    assert loaded == [1]  # where they cannot be used, that is not tried again
    np.testing.assert_array_equal(out, geometry(image))


def test_decoding_imports_no_compiler_before_it_pays() -> None:
    code = "import sys, extract.passes.decoding_process; print({'numba', 'torch'} & set(sys.modules))"
    root = str(Path(shaping.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
