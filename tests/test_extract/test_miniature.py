"""The miniature study: the same twice, annotated as drawn, built on after a kill, loaded by the ordinary adapters."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from examples.miniature import build as building
from examples.miniature.build import build, stored_stamp, tasks
from examples.miniature.captions import captions, web_captions
from examples.miniature.datasets import DATASETS, pictures, pixels_of, write_dataset
from examples.miniature.drawing import SIDE, Scene, Thing, render
from examples.miniature.factors import FACTORS, STUDY_FACTORS, apply, typical_scene
from examples.miniature.models import ARCHITECTURES, FAMILIES, QUICK, RECIPES, models_txt
from examples.miniature.shapes import CLASSES, LARGER_CLASSES, LOOKS, UNSEEN
from examples.miniature.surfaces import ODD_MATERIALS
from extract.datasets.resolving import resolve
from extract.datasets.specs import read_datasets_toml
from extract.zoo.model_list import read_model_list

REPOSITORY = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from pathlib import Path
from examples.miniature import build, training

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    training._METHODS["supervised"] = die
    build.build(Path(sys.argv[1]), quick=True, jobs=1)
"""


@dataclass
class Built:
    """A quick build that was killed in its last run and then finished."""

    out: Path
    before: dict[str, int]
    after: dict[str, int]
    done: list[str]


def changed(out: Path) -> dict[str, int]:
    """When each published file was last written."""
    return {
        path.relative_to(out).as_posix(): path.stat().st_mtime_ns
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".staged" not in path.as_posix() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Kill a quick build with SIGKILL while it trains its last model, then build again."""
    out = tmp_path_factory.mktemp("miniature") / "built"
    script = out.parent / "killed.py"
    script.write_text(KILLED)
    killed = subprocess.run([sys.executable, script, out], cwd=REPOSITORY, env=_environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    before = changed(out)
    done: list[str] = []
    build(out, quick=True, jobs=1, done=done.append)
    return Built(out, before, changed(out), done)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def test_a_killed_build_goes_on_and_keeps_what_was_finished(built: Built) -> None:
    finished = {"weights/wit-cnn-1k.safetensors", "weights/wit-cnn-2k.safetensors", "datasets/val/manifest.csv"}
    assert finished <= set(built.before)
    assert "weights/resnet.safetensors" not in built.before
    assert "models.txt" not in built.before, "the lists come last: their presence says that all is there"
    assert "weights/resnet.safetensors" in built.after
    rewritten = {name for name in built.before if built.before[name] != built.after.get(name)}
    assert not rewritten
    assert built.done == ["1 of 1: weights/resnet"]
    assert not list(built.out.rglob(".staged-*"))


def test_a_finished_build_does_nothing_again(built: Built) -> None:
    build(built.out, quick=True, jobs=1, done=pytest.fail)
    again = changed(built.out)
    images_and_weights = {n: t for n, t in built.after.items() if n.startswith(("datasets/", "weights/"))}
    assert {n: again[n] for n in images_and_weights} == images_and_weights


def test_a_torn_or_foreign_weight_file_counts_as_missing(built: Built, tmp_path: Path) -> None:
    whole = built.out / "weights" / "resnet.safetensors"
    assert len(stored_stamp(whole)) == 64
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(whole.read_bytes()[:-1])
    assert stored_stamp(torn) == ""
    assert stored_stamp(tmp_path / "absent.safetensors") == ""


def test_training_twice_gives_the_same_bytes(built: Built) -> None:
    from examples.miniature.training import train

    file = built.out / "weights" / "resnet.safetensors"
    first = file.read_bytes()
    train(QUICK[1], built.out, stored_stamp(file))
    assert file.read_bytes() == first


def test_a_change_is_made_again_with_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {task.id: task.stamp for task in tasks()}
    longer = replace(RECIPES[0], lr=0.1)
    monkeypatch.setattr(building, "RECIPES", (longer, *RECIPES[1:]))
    monkeypatch.setitem(DATASETS, "val", replace(DATASETS["val"], n=7))
    other = {task.id for task in tasks() if before[task.id] != task.stamp}
    assert other == {
        "datasets/val", *(f"weights/{name}" for name in ("laion-vit", "ft-laion-vit", "ft12k-laion-vit"))
    }  # fmt: skip


def test_processes_do_what_one_does_and_no_task_before_its_needs(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: DATASETS[name] for name in ("train", "val", "noise")}
    monkeypatch.setattr(building, "DATASETS", few)
    done: list[str] = []
    build(tmp_path, quick=True, jobs=2, done=done.append)
    order = [line.partition(": ")[2] for line in done]
    assert len(order) == len(few) + len(QUICK)
    assert order.index("datasets/train") < min(order.index(f"weights/{recipe.id}") for recipe in QUICK)
    for path in (tmp_path / "weights").glob("*.safetensors"):
        assert path.read_bytes() == (built.out / "weights" / path.name).read_bytes()


def test_the_lists_are_read_by_the_ordinary_readers(built: Built) -> None:
    specs = read_model_list(built.out / "models.txt")
    assert [spec.id for spec in specs] == ["wit-cnn-1k", "wit-cnn-2k", "resnet"]
    assert all(spec.checkpoint is not None and spec.checkpoint.is_file() for spec in specs)
    datasets = {spec.name: resolve(spec) for spec in read_datasets_toml(built.out / "datasets.toml")}
    assert not [problem for dataset in datasets.values() for problem in dataset.problems]
    val = datasets["mini-val"]
    assert val.class_space is not None
    assert val.class_space.id == "miniature-10"
    assert val.class_space.names == CLASSES
    assert {val.class_space.names[label] for label in val.labels} == set(CLASSES)
    assert set(FACTORS) | {"top_factor", "prototype"} == set(val.metadata)
    assert {d.card.role for d in datasets.values()} == {"id", "shift", "ood", "reference", "pairs"}
    assert datasets["mini-kinds"].card.n_classes == 4
    assert datasets["mini-captions"].captions is not None
    assert all((d.labels == -1).all() for d in datasets.values() if d.card.role == "ood")


def test_weights_load_through_the_adapters_and_answer(built: Built) -> None:
    import torch

    from extract.classes.prompts import PromptSet
    from extract.libraries import load, prepare

    val = next(resolve(s) for s in read_datasets_toml(built.out / "datasets.toml") if s.name == "mini-val")
    for spec in read_model_list(built.out / "models.txt"):
        prepared = prepare(spec)
        model = load(prepared, device="cpu", precision="fp32")
        pixels = np.stack([prepared.preprocessing.geometry(val.open(i)) for i in range(4)])
        outputs = model.forward(torch.from_numpy(pixels))
        prompts = PromptSet("one", ("a photo of a {}",)) if spec.library == "open_clip" else None
        head = model.head(val.class_space, prompts)
        assert head.weight.shape == (10, outputs.features.shape[1])
        assert pixels.shape[1] == int(spec.options.get("input_size", 32))
        if outputs.logits is not None:
            got = outputs.features.numpy() @ head.weight.T + head.bias
            np.testing.assert_allclose(got, outputs.logits.numpy(), atol=1e-4)


def test_every_named_file_is_there_and_inside_and_nothing_else_is(built: Built) -> None:
    for name, task in zip(DATASETS, tasks(quick=True), strict=False):
        folder = built.out / "datasets" / name
        images = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in (".jpg", ".png")}
        assert images == {picture.path for picture in pictures(name, task.n)}
        for table in folder.glob("*.csv"):
            with table.open(newline="", encoding="utf-8") as file:
                assert {row["path"] for row in csv.DictReader(file)} == images
        for path in images:
            with Image.open(folder / path) as image:
                assert image.size == (SIDE, SIDE)


def test_rendering_is_the_same_twice(tmp_path: Path) -> None:
    digests = []
    for run in ("a", "b"):
        for name in ("val", "cue-conflict", "noise", "sketch"):
            write_dataset(tmp_path / run / name, name, 24, "stamp")
        digest = hashlib.sha256()
        for path in sorted((tmp_path / run).rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(tmp_path / run).as_posix().encode() + path.read_bytes())
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", DATASETS)
def test_a_picture_depends_on_its_own_index_alone(name: str) -> None:
    few, many = list(pictures(name, 12)), list(pictures(name, 30))
    assert few == many[:12]
    assert len({p.path for p in many}) == 30
    assert len({pixels_of(p).tobytes() for p in few}) == 12, "no two pictures are the same"


_SHOWS: dict[str, Callable[[Scene, Thing], bool]] = {
    "pose": lambda s, t: abs(t.angle) > 30,
    "background": lambda s, t: s.background not in LOOKS[t.shape].places,
    "pattern": lambda s, t: t.pattern != "",
    "color": lambda s, t: t.colour not in LOOKS[t.shape].colours,
    "smaller": lambda s, t: t.size < 0.31,
    "shape": lambda s, t: t.shear != 0,
    "partial_view": lambda s, t: min(t.x, 1 - t.x, 1 - t.y) < 0.17,
    "subcategory": lambda s, t: t.rare,
    "texture": lambda s, t: t.material in ODD_MATERIALS,
    "larger": lambda s, t: t.size > 0.42,
    "darker": lambda s, t: s.brightness < 0.7,
    "object_blocking": lambda s, t: s.blocker == "crate",
    "person_blocking": lambda s, t: s.blocker == "person",
    "style": lambda s, t: s.style != "photo",
    "brighter": lambda s, t: s.brightness > 1.2,
    "multiple_objects": lambda s, t: bool(s.others),
}


def test_annotations_agree_with_what_was_drawn() -> None:
    annotated = list(pictures("val", DATASETS["val"].n))
    for picture in annotated:
        scene = picture.look
        assert isinstance(scene, Scene)
        assert scene.thing is not None
        drawn = {factor for factor in FACTORS if _SHOWS[factor](scene, scene.thing)}
        text = {factor for factor in FACTORS if picture.columns[factor] == 1}
        assert text == drawn, picture.path
        assert picture.columns["prototype"] == int(not drawn)
        assert picture.columns["top_factor"] in (drawn or {""})
        assert scene.thing.shape == picture.label
    for factor in FACTORS:
        top = sum(picture.columns["top_factor"] == factor for picture in annotated)
        assert top >= (60 if factor in STUDY_FACTORS else 12), f"{factor} has too few images to measure"


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["apple", "car", "umbrella"])
def test_a_factor_changes_what_it_names(factor: str, name: str) -> None:
    plain = replace(typical_scene(name, np.random.default_rng(5)), grain=0.0, brightness=1.0)
    scene = apply(factor, plain, np.random.default_rng(6))
    (before, area_before), (after, area_after) = render(plain), render(scene)
    difference = np.abs(after.astype(int) - before.astype(int)).max(axis=2)
    outside = (area_before == 0) & (area_after == 0)
    assert difference.max() > 20
    same_outline = {"background", "pattern", "color", "texture", "darker", "brighter", *FACTORS[10:]}
    assert (area_before == area_after).all() == (factor in same_outline)
    if factor in ("pattern", "color", "texture"):
        assert difference[outside].max() == 0, "the place and the shadow stay"
    if factor == "background":
        assert difference[area_before == 1].max() == 0, "the object stays"
    if factor == "smaller":
        assert area_after.sum() < 0.6 * area_before.sum()
    if factor == "larger":
        assert area_after.sum() > 1.3 * area_before.sum()
    if factor == "partial_view":
        assert area_after.sum() < 0.8 * area_before.sum()
        assert area_after[-1].any() or area_after[:, 0].any() or area_after[:, -1].any()
    if factor == "darker":
        assert after.mean() < 0.6 * before.mean()
    if factor == "brighter":
        assert after.mean() > 1.1 * before.mean()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31 - 1), active=st.lists(st.sampled_from(FACTORS), max_size=4))
def test_any_mix_of_factors_renders_an_object_in_sight(seed: int, active: list[str]) -> None:
    rng = np.random.default_rng(seed)
    scene = typical_scene(CLASSES[seed % 10], rng)
    for factor in active:
        scene = apply(factor, scene, rng)
    pixels, coverage = render(scene)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    assert coverage.sum() > 8


def test_clean_captions_name_the_class_and_noisy_ones_mostly_do() -> None:
    hits = []
    for index, picture in enumerate(pictures("web", 300)):
        assert isinstance(picture.look, Scene)
        rng = np.random.default_rng(index)
        assert all(picture.label in text for text in captions(picture.look, rng, 5))
        hits += [picture.label in text for text in web_captions(picture.look, rng)]
    assert 0.75 < np.mean(hits) < 0.95
    for picture in pictures("train", 40):
        assert len(picture.captions) >= 3
        assert all(picture.label in text for text in picture.captions)


def test_what_is_unseen_is_unseen() -> None:
    assert not set(UNSEEN) & set(LARGER_CLASSES)
    for name in ("train", "web"):
        for picture in pictures(name, 200):
            assert isinstance(picture.look, Scene)
            shapes = {picture.look.thing.shape if picture.look.thing else "", *(t.shape for t in picture.look.others)}
            assert not shapes & set(UNSEEN)
    assert not {p.path for p in pictures("textures", 50) if p.path.split("-")[0] in CLASSES}


def test_cue_conflicts_are_conflicts_and_balanced() -> None:
    drawn = list(pictures("cue-conflict", DATASETS["cue-conflict"].n))
    pairs = [(p.columns["shape"], p.columns["texture"]) for p in drawn]
    assert all(shape != texture for shape, texture in pairs)
    assert len(set(pairs)) == 90
    assert {pairs.count(pair) for pair in pairs} == {len(drawn) // 90}
    for picture in drawn:
        assert isinstance(picture.look, Scene)
        assert picture.look.thing is not None
        assert picture.look.thing.shape == picture.columns["shape"]
        assert picture.look.thing.material == LOOKS[picture.columns["texture"]].material
        shape, texture = picture.path.split("/")[1].removesuffix(".png").split("-")
        assert shape.rstrip("0123456789") == picture.columns["shape"]
        assert texture.rstrip("0123456789") == picture.columns["texture"]


def test_the_repository_s_list_is_the_miniature_s() -> None:
    assert (REPOSITORY / "models.txt").read_text() == models_txt(folder="miniature/weights")


def test_the_zoo_covers_the_study_s_groups() -> None:
    from cache_schema.format.records import FAMILIES as NAMES
    from cache_schema.format.records import GROUPS

    groups = {recipe.group for recipe in RECIPES}
    assert groups == set(GROUPS) - {"unknown"}
    assert {FAMILIES.get(recipe.arch, "cnn") for recipe in RECIPES} == set(FAMILIES.values()) | {"cnn"} <= set(NAMES)
    assert {recipe.arch for recipe in RECIPES} == set(ARCHITECTURES)
    names = [name for recipe in RECIPES for name in recipe.models()]
    assert len(names) == len(set(names)) >= 14
    assert {r.source for r in RECIPES if r.group == "clip-zero-shot"} == {"mini-wit", "mini-laion"}
