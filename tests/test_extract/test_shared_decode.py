"""One decode for several geometries: the pixels, reasons and files of as many passes as there are geometries."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from io import BytesIO
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from decoding import GEOMETRY, Harmful, N, coloured, decoded, decoded_together, make, replaced
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.datasets.base import Dataset
from extract.passes import image_rows
from extract.passes.decode import Decoder
from extract.passes.image_rows import DatasetChangedError
from extract.passes.pixel_cache import PixelSource
from extract.passes.pixel_room import image_bytes, room_of, together
from extract.passes.shaping import Shaper
from extract.planning.options import RunOptions
from extract.planning.plan import MISSING, SEALED, Plan
from extract.preprocess import INTERPOLATIONS, RESIZE_MODES, Geometry

OTHER = Geometry("squash", (9, 12), (9, 12), "bilinear")
SAME_RESIZE = Geometry("shortest", (20, 20), (20, 20), "bicubic")
THREE = [GEOMETRY, OTHER, SAME_RESIZE]

sides = st.integers(1, 40)
geometries = st.builds(
    Geometry,
    st.sampled_from(RESIZE_MODES),
    st.tuples(sides, sides) | sides.map(lambda side: (side, side)),
    st.tuples(sides, sides),
    st.sampled_from(sorted(INTERPOLATIONS)),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.sampled_from(["even", "down"]),
)
MODES = ("RGB", "L", "P", "RGBA", "LA", "1", "I;16", "CMYK JPEG", "L JPEG", "RGB JPEG", "YCbCr JPEG", "rotated JPEG")


def file_of(mode: str, width: int, height: int, seed: int) -> bytes:
    """Return an image file of random pixels: PNG, or JPEG, of which one has an EXIF orientation."""
    mode, _, kind = mode.partition(" ")
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(height // 3, 1), max(width // 3, 1), 3), np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if mode == "rotated":
        exif[0x0112] = 6
    picture = picture.convert({"rotated": "RGB", "I;16": "L"}.get(mode, mode))
    if mode == "I;16":
        picture = picture.convert("I;16")
    if mode == "P":
        picture.info["transparency"] = 3
    out = BytesIO()
    picture.save(out, kind or "PNG", exif=exif)
    return out.getvalue()


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(MODES), st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5),
    st.lists(geometries, min_size=1, max_size=5, unique=True),
    st.sampled_from([0, 2]),
    st.integers(0, 2**32),
)
@pytest.mark.parametrize("compiled", [False, True])
def test_one_decode_gives_what_separate_ones_give(
    compiled: bool, files, wanted: list[Geometry], border: int, seed: int
) -> None:
    """Whatever the image's mode and size; images too thin for one geometry are missing at that one alone."""
    with tempfile.TemporaryDirectory() as folder:
        data = [file_of(*file, seed + number) for number, file in enumerate(files)]
        names = [f"{number}.img" for number in range(len(data))]
        for name, content in zip(names, data, strict=True):
            (Path(folder) / name).write_bytes(content)
        dataset = replace(make(Path(folder), names, [len(content) for content in data]), border_crop=border)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(image_rows, "_shaper", Shaper(worth=0.0 if compiled else 1e9))
            found = decoded_together(dataset, 0, 2, wanted)
        for geometry, (pixels, valid, problems) in zip(wanted, found, strict=True):
            alone = decoded(dataset, 0, len(data), geometry)  # by Pillow
            np.testing.assert_array_equal(pixels, alone[0])
            np.testing.assert_array_equal(valid, alone[1])
            assert problems == alone[2]
            for row in np.flatnonzero(valid):
                np.testing.assert_array_equal(pixels[row], geometry(dataset.open(row)))


def test_processes_give_the_same_at_every_geometry(dataset: Dataset) -> None:
    bad = replaced(dataset, 3, b"no image at all")
    want = [decoded(bad, 0, N, geometry) for geometry in THREE]
    for workers, batch_size in ((0, 5), (2, 3), (2, 50)):
        for (pixels, valid, problems), alone in zip(
            decoded_together(bad, workers, batch_size, THREE), want, strict=True
        ):
            np.testing.assert_array_equal(pixels, alone[0])
            np.testing.assert_array_equal(valid, alone[1])
            assert problems == alone[2] == {3: "not an image of a known format"}


@pytest.mark.slow
def test_a_crash_at_one_geometry_costs_that_one_alone(dataset: Dataset) -> None:
    bad = replaced(dataset, 9, coloured((1, 2, 3)))
    good, other = decoded(bad, 0, 8), decoded(bad, 0, 8, OTHER)
    harmful = Harmful(**vars(GEOMETRY))
    found = decoded_together(bad, 2, 8, [harmful, OTHER])
    pixels, valid, problems = found[0]
    assert np.flatnonzero(~valid).tolist() == [9]
    assert problems == {9: "the decoder crashed on it"}
    np.testing.assert_array_equal(pixels[valid], good[0][valid])
    assert not pixels[9].any()
    np.testing.assert_array_equal(found[1][0], other[0])
    assert found[1][1].all()
    assert found[1][2] == {}


def test_pixels_for_later_are_kept_and_nothing_is_decoded_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = replaced(dataset, 5, b"")
    want = {geometry: decoded(dataset, 0, N, geometry) for geometry in THREE}
    opened: list[int] = []
    open_row = image_rows.open_row
    monkeypatch.setattr(image_rows, "open_row", lambda *args: opened.append(args[1]) or open_row(*args))
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")

    def check(source: PixelSource, wanted: list[Geometry], ahead: list[Geometry]) -> int:
        opened.clear()
        for batch in source.batches(dataset, wanted, 8, ahead):
            assert len(batch.views) == len(wanted)
            for geometry, view in zip(wanted, batch.views, strict=True):
                pixels, valid, problems = want[geometry]
                np.testing.assert_array_equal(view.pixels, pixels[batch.start : batch.stop])
                np.testing.assert_array_equal(view.valid, valid[batch.start : batch.stop])
                assert dict(view.problems) == {r: t for r, t in problems.items() if batch.start <= r < batch.stop}
        return len(opened)

    with Decoder(0) as decoder:
        source = PixelSource(decoder, options)
        assert check(source, [OTHER], [GEOMETRY]) == N
        assert len(list((tmp_path / "pixels").glob("*.u8"))) == 2
        assert check(source, [GEOMETRY], [OTHER]) == 0
        assert check(source, THREE, []) == N  # two are read beside the third, which is decoded
        assert check(source, [SAME_RESIZE, GEOMETRY, OTHER], []) == 0
        # Ahead goes what the bound leaves room for; what is wanted comes first.
        size = N * image_bytes([GEOMETRY])
        small = replace(options, pixel_cache=tmp_path / "small", pixel_cache_bytes=size)
        assert check(PixelSource(decoder, small), [GEOMETRY], [OTHER]) == N
        assert [path.stat().st_size for path in (tmp_path / "small").glob("*.u8")] == [size]


def test_a_pass_that_ends_early_keeps_none_of_its_geometries(dataset: Dataset, tmp_path: Path) -> None:
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")
    with Decoder(0) as decoder:
        for _ in PixelSource(decoder, options).batches(dataset, [GEOMETRY, OTHER], 8, [SAME_RESIZE]):
            assert len(list((tmp_path / "pixels").glob(".*.staged"))) == 3
            break
        assert list((tmp_path / "pixels").iterdir()) == []
        with (dataset.root / dataset.paths[-1]).open("ab") as file:
            file.write(b"more")
        with pytest.raises(DatasetChangedError):
            list(PixelSource(decoder, options).batches(dataset, [GEOMETRY, OTHER], 8))
    assert list((tmp_path / "pixels").iterdir()) == []


@given(st.lists(geometries, max_size=9), st.integers(1, 300), st.integers(0, 9), st.integers(0, 10**7))
def test_geometries_side_by_side_fit_into_memory(wanted, batch_size: int, workers: int, most: int) -> None:
    groups = together(wanted, batch_size, workers, most)
    assert [geometry for group in groups for geometry in group] == wanted
    rows = room_of(batch_size, workers) if workers else batch_size
    assert all(len(group) == 1 or rows * image_bytes(group) <= most for group in groups)
    for group, following in pairwise(groups):
        assert rows * image_bytes([*group, following[0]]) > most  # no more groups than needed


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 5),
)
def test_units_hold_each_owing_model_once_and_no_more_than_asked_for(models, shards: int, largest: int, devices: int):
    """Models of one geometry follow each other; shards are disjoint and complete, whatever is done already."""
    ways = [Geometry("squash", (side, side), (side, side)) for side in (8, 9, 10, 11)]
    made, jobs = [], []
    for number, (way, owes) in enumerate(models):
        preprocessing = SimpleNamespace(geometry=ways[way])
        model = SimpleNamespace(card=SimpleNamespace(id=str(number)), preprocessing=preprocessing)
        made.append(model)
        state = MISSING if owes else SEALED
        job = {"model": model, "dataset": range(number), "preprocessing": preprocessing, "state": state, "arrays": ()}
        jobs.append(SimpleNamespace(**job))

    def units(done: bool) -> list[list[str]]:
        states = [SimpleNamespace(**vars(job) | ({} if done else {"state": MISSING})) for job in jobs]
        plan = Plan(tuple(made), (), tuple(states), ())  # type: ignore[arg-type]
        shares = [plan.units(shard=(i, shards), largest=largest, devices=devices) for i in range(shards)]
        for unit in (unit for share in shares for unit in share):
            assert {job.model.card.id for job in unit.jobs} == {model.card.id for model in unit.models}
            sides = [model.preprocessing.geometry for model in unit.models]
            assert (
                sorted(side.crop for side, _ in groupby(sides)) == sorted(way.crop for way in unit.geometries)
                or largest
            )
            assert devices == 1 or not largest or len(unit.models) <= largest
            assert devices or len(unit.geometries) == 1
        assert devices != 1 or len(shares[0]) <= 1
        if largest == 1:  # each model is a piece
            assert all(len(share) >= min(devices, sum(len(unit.models) for unit in share)) for share in shares)
        return [[model.card.id for unit in share for model in unit.models] for share in shares]

    owing = [str(number) for number, (_, owes) in enumerate(models) if owes]
    now, all_of_them = units(done=True), units(done=False)
    assert sorted(name for share in now for name in share) == sorted(owing)
    for share, whole in zip(now, all_of_them, strict=True):
        assert set(share) == set(whole) & set(owing)
