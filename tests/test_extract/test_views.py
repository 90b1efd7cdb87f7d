"""The surest of many views of an image: against views cut and chosen one by one, in stores of both formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from scipy.stats import entropy
from tiny_clips import LOOK, RUN, VISION, clip, opened, write_study

import cache_schema
from cache_schema.writing.validate import problems
from extract.models.base import LoadedModel
from extract.models.view_recipe import CHOSEN, RATIO, SCALE, VIEWS
from extract.models.views import Views, crop_of
from extract.passes.pixel_room import image_bytes, room_of, rows_of_views
from extract.passes.sharing import Sharing
from extract.passes.views import surest
from extract.planning.estimate import measured_rates
from extract.preprocess import Geometry

ROOT = Path(__file__).parents[2]
TIMM = "timm:{} allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0 {}"
PARTS = ("view_features", "view_entropies", "view_indices")
DETAILS = {"of": 64, "seed": 0, "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "flip": 0.5}


@pytest.fixture
def clips(tmp_path: Path, pets: Path) -> Path:
    return write_study(tmp_path, pets)


def cut(image: Image.Image, name: str, geometry: Geometry) -> NDArray[np.uint8]:
    """Return all views of an image, (VIEWS, H, W, 3)."""
    height, width = geometry.crop
    resampling = Image.Resampling[geometry.interpolation.upper()]
    views = [np.asarray(geometry(image))]
    for view in range(1, VIEWS):
        *box, mirrored = crop_of(name, view, image.height, image.width)
        crop = image.crop(tuple(box)).resize((width, height), resampling)
        views.append(np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop))
    return np.stack(views)


def chosen(model: LoadedModel, head: Any, views: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return what is stored of one image, by the model's own pass and its stored head."""
    with torch.inference_mode():
        found = model.forward(torch.from_numpy(views))
    assert found.features is not None
    features = found.features.double().numpy()
    used = features / np.linalg.norm(features, axis=1, keepdims=True) if head.normalize_features else features
    logits = (head.logit_scale or 1) * used @ head.weight.astype(float).T + head.bias
    uncertain = entropy(softmax(logits, axis=1), axis=1)
    order = np.argsort(uncertain, kind="stable")[:CHOSEN]
    return {"features": features, "all": uncertain, "view_indices": order, "view_entropies": uncertain[order]}


@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_views_are_those_of_lowest_entropy(library: str, clips: Path, run_extract: Callable[..., Any]) -> None:
    line = clip(clips, VISION, "id=tiny") if library == "open_clip" else TIMM.format("test_vit", "id=tiny")
    (clips / "models.txt").write_text(line)
    done = run_extract(*RUN, "--arrays", "views", "--features-dtype", "float32", cwd=clips, code=1)
    assert "broken.jpg" in done.stderr
    cache = cache_schema.open_cache(clips / "cache")
    store, head = cache.store("tiny", "pets"), cache.head("tiny", "pets")
    assert (store.parts, store.header["schema_version"]) == (("views",), 2)
    assert store.details["views"] == DETAILS
    assert not problems(store.path)
    model, keep = opened(line), store.valid
    read = {name: store.read(name) for name in PARTS}
    assert read["view_features"].shape == (len(store), CHOSEN, store.shape("features")[1])
    assert keep.sum() == len(store) - 1
    for row in np.flatnonzero(keep):
        name = store.image_ids[row]
        image = Image.open(clips / "images" / name).convert("RGB")
        wanted = chosen(model, head, cut(image, name, model.preprocessing.geometry))
        got = read["view_indices"][row]
        np.testing.assert_allclose(read["view_entropies"][row], wanted["view_entropies"], atol=1e-4)
        np.testing.assert_allclose(wanted["all"][got], read["view_entropies"][row], atol=1e-4)
        if np.diff(np.sort(wanted["all"])).min() > 1e-5:
            np.testing.assert_array_equal(got, wanted["view_indices"])
        np.testing.assert_allclose(read["view_features"][row], wanted["features"][got], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(store.features()[row], wanted["features"][0], rtol=1e-4, atol=1e-4)
    assert (read["view_indices"][~keep] == -1).all()
    assert all(np.isnan(read[name][~keep]).all() for name in PARTS[:2])


def test_neither_batches_nor_processes_nor_formats_change_a_byte(clips: Path, run_extract: Callable[..., Any]) -> None:
    (clips / "models.txt").write_text("\n".join([clip(clips, VISION, "id=tiny"), TIMM.format("test_resnet", "id=cnn")]))
    ways: dict[str, tuple[Any, ...]] = {
        "one": ("--batch-size", 4, "--workers", 0),
        "many": ("--batch-size", 320, "--workers", 2),
        "file": ("--batch-size", 128, "--workers", 1, "--store", "hdf5", "--pixel-cache", "pixels"),
    }
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, how in ways.items():
        words = ("--model-list", "models.txt", "--prompts", "openai-7", *how, "--arrays", "views")
        run_extract(*words, "--cache", name, cwd=clips, code=1)
        cache = cache_schema.open_cache(clips / name)
        found[name] = {f"{m} {a}": cache.store(m, "pets").read(a) for m in ("tiny", "cnn") for a in PARTS}
    assert not list((clips / "pixels").glob("*.u8"))  # of 64 views an image, none are kept
    for name in ("many", "file"):
        for array, values in found["one"].items():
            np.testing.assert_array_equal(found[name][array], values, err_msg=f"{name} {array}")


def test_a_store_with_views_is_read_in_place_of_the_one_without(clips: Path, run_extract: Callable[..., Any]) -> None:
    (clips / "images" / "cat" / "broken.jpg").unlink()
    run_extract(*RUN, cwd=clips)
    plain = cache_schema.open_cache(clips / "cache").store("tiny", "pets")
    run_extract(*RUN, "--arrays", "views,tokens", cwd=clips)
    found = cache_schema.open_cache(clips / "cache").store("tiny", "pets")
    assert found.parts == ("tokens", "views")
    assert plain.identity in found.record["extends"]
    np.testing.assert_allclose(found.logits(), plain.logits(), atol=1e-2)
    np.testing.assert_allclose(found.features(), plain.features(), atol=1e-2)
    assert found.shape("token_class") == (11, 64)
    assert set(found.details["tokens"]) == {"layer"}
    rates = measured_rates(cache_schema.open_cache(clips / "cache"))
    assert rates["tiny"] > 3 * float(found.record["images_per_second"])  # of forward passes, not of images
    assert "arrays views: in 2 of 2 prediction stores" in run_extract("status", "cache", cwd=clips).stdout


def test_models_that_cannot_give_views_are_refused_and_the_others_run(
    clips: Path, run_extract: Callable[..., Any]
) -> None:
    (clips / "images" / "cat" / "broken.jpg").unlink()
    headless = "timm:test_vit allow_random=yes seed=1 num_classes=0 input_size=64 crop_pct=1.0 id=headless"
    (clips / "net.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.stem = nn.Conv2d(3, 8, 8, 8)\n        self.fc = nn.Linear(8, 3)\n\n"
        "    def forward(self, x):\n        return torch.sin(self.fc(self.stem(x).mean((2, 3))))\n\n"
        "def net():\n    torch.manual_seed(0)\n    return Net()\n"
    )
    own = f"python:{clips}/net.py:net classes=pets input_size=32 id=bent {LOOK}"
    (clips / "models.txt").write_text("\n".join([clip(clips, VISION, "id=tiny"), headless, own]))
    failed = run_extract(*RUN, "--arrays", "views", cwd=clips, code=1)
    lines = [line for line in failed.stderr.splitlines() if line.startswith("failed")]
    assert any("headless" in line and "--arrays views: it has no head" in line for line in lines), failed.stderr
    assert any("bent" in line and "--arrays views: its head is not affine" in line for line in lines), failed.stderr
    cache = cache_schema.open_cache(clips / "cache")
    assert {store.model.id for store in cache.stores("predictions")} == {"tiny"}
    failed = run_extract(*RUN, "--arrays", "views", "--compile", cwd=clips, code=2)
    assert "--arrays views: the 64 views of an image are run together" in failed.stderr


# ---- which views, which batches


@given(name=st.text(), view=st.integers(1, VIEWS - 1), height=st.integers(1, 400), width=st.integers(1, 400))
def test_a_crop_lies_in_its_image_and_depends_on_name_and_number_alone(
    name: str, view: int, height: int, width: int
) -> None:
    left, top, right, bottom, mirrored = crop_of(name, view, height, width)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert crop_of(name, view, height, width) == (left, top, right, bottom, mirrored)


def test_crops_are_spread_as_random_resized_crops_are() -> None:
    found = np.array([crop_of(f"image {i}", view, 300, 400) for i in range(200) for view in range(1, VIEWS)])
    rows, columns = found[:, 3] - found[:, 1], found[:, 2] - found[:, 0]
    share, ratio = rows * columns / (300 * 400), columns / rows
    assert SCALE[0] * 0.97 < share.min() < 0.1
    assert 0.97 < share.max() <= 1
    assert RATIO[0] * 0.97 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < RATIO[1] * 1.03
    assert abs(found[:, 4].mean() - 0.5) < 0.02
    spare = rows < 200
    assert abs((found[spare, 1] / (300 - rows[spare])).mean() - 0.5) < 0.02
    torch.manual_seed(0)
    from torchvision.transforms import RandomResizedCrop

    blank = torch.zeros(3, 300, 400)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(SCALE), list(RATIO)) for _ in range(4000)])
    areas = theirs[:, 2] * theirs[:, 3] / (300 * 400)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert abs(np.quantile(areas, quantile) - np.quantile(share, quantile)) < 0.03


def test_the_first_view_is_the_plain_image_and_names_decide_the_others(pets: Path) -> None:
    image = Image.open(next(iter(sorted((pets / "cat").iterdir())))).convert("RGB")
    geometry = Geometry("shortest", (40, 40), (32, 32))
    views = Views.of(geometry)
    one, other, again = (views.for_image(name)(image).reshape(VIEWS, 32, 32, 3) for name in ("a", "b", "a"))
    np.testing.assert_array_equal(one[0], geometry(image))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, cut(image, "a", geometry))
    assert (one[1:] != other[1:]).any(axis=(1, 2, 3)).all()
    assert views != geometry
    assert views.output_size == (VIEWS * 32, 32)


ENTROPIES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 9.0]), min_size=1, max_size=12)


@given(levels=ENTROPIES, count=st.integers(1, 6))
def test_the_chosen_views_are_the_surest_ones_and_of_equal_ones_the_first(levels: list[float], count: int) -> None:
    logits = torch.tensor([[level, 0.0, 0.0] for level in levels])  # equal rows have equal entropies
    features = torch.arange(2.0 * len(levels)).reshape(-1, 2)
    found = {name: values.numpy() for name, values in surest(features, logits, count).items()}
    wanted = sorted(range(len(levels)), key=lambda i: (-levels[i], i))[:count]
    assert found["view_indices"].tolist() == wanted
    np.testing.assert_array_equal(found["view_features"], features.numpy()[wanted])
    truth = entropy(softmax(logits.double().numpy(), axis=1), axis=1)
    np.testing.assert_allclose(found["view_entropies"], truth[wanted], rtol=1e-4, atol=1e-6)
    assert (np.diff(found["view_entropies"]) >= 0).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_hidden_among_the_views_left_out(wrong: float) -> None:
    logits, features = torch.randn(9, 4), torch.randn(9, 3)
    logits[8, 0] = wrong
    assert surest(features, logits, 2)["view_entropies"].isnan().all()
    logits[8, 0], features[8, 0] = -9.0, wrong
    assert surest(features, logits, 2)["view_entropies"].isnan().all()


@given(
    batch=st.integers(1, 2000), side=st.integers(1, 600), workers=st.integers(0, 32), most=st.integers(0, 4 << 30)
)  # fmt: skip
def test_batches_of_views_are_bounded(batch: int, side: int, workers: int, most: int) -> None:
    views = Views.of(Geometry("squash", (side, side), (side, side)))
    rows = rows_of_views(batch, views, workers, most)
    room = room_of(rows, workers) if workers else rows
    assert 1 <= rows <= max(batch // VIEWS, 1)
    assert rows == 1 or room * image_bytes([views]) <= most


def test_views_have_a_pass_of_their_own() -> None:
    small, large = (Geometry("squash", (side, side), (side, side)) for side in (16, 32))
    ways = [small, Views.of(small), large, Views.of(large)]
    options: Any = SimpleNamespace(batch_size=128, workers=0, pixel_cache=None)
    unit: Any = SimpleNamespace(jobs=(), geometries=tuple(ways))
    sharing = Sharing(unit, options, 1 << 30)
    dataset: Any = range(500)
    passes = sharing.passes(dataset, ways)
    assert passes == [[small, large], [ways[1]], [ways[3]]]
    assert [sharing.rows(dataset, group) for group in passes] == [128, 2, 2]
