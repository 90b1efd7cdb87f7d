"""The outputs of a classifier meet a dataset's classes by name: timm's order, torchvision's, or a file's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.utils.misc import natural_key as of_timm

import cache_schema
from closerlook_common.errors import UserError
from extract.classes.orders import differ, in_order, natural_key
from extract.zoo.model_list import parse_line

NAMES = [f"c{number}" for number in range(1, 11)] + ["B", "a"]


@given(st.lists(st.text("aBc019é_", min_size=1, max_size=6), min_size=2, max_size=8, unique=True))
def test_both_orders_are_the_frameworks_own(names: list[str]) -> None:
    assert [natural_key(name) for name in names] == [of_timm(name) for name in names]
    assert in_order(names, "torchvision") == sorted(names)
    if len({str(of_timm(name)) for name in names}) < len(names):
        with pytest.raises(UserError, match=r"does not distinguish"):
            in_order(names, "timm")
        assert differ(names) is not None
    else:
        assert in_order(names, "timm") == sorted(names, key=of_timm)
        assert (differ(names) is None) == (sorted(names, key=of_timm) == sorted(names))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Twelve folders of pictures, and a classifier whose outputs are in timm's order of them."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "given" / name).mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "given" / name / f"{index}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_vit", num_classes=len(NAMES)).state_dict()
        state["head.weight"] = torch.randn(state["head.weight"].shape)
    save_file(dict(state), tmp_path / "w.safetensors")
    shuffled = np.random.default_rng(1).permutation(sorted(NAMES, key=of_timm)).tolist()
    (tmp_path / "names.txt").write_text("\n".join(shuffled))
    return tmp_path


def logits_by_class(study: Path, run_extract, options: str) -> dict[str, np.ndarray]:
    (study / "models.txt").write_text(f"timm:test_vit checkpoint=w.safetensors id=mine input_size=64 {options}\n")
    words = ["--model-list", "models.txt", "--dataset", "given=given", "--workers", 0, "--cache", options or "none"]
    run_extract(*words, cwd=study)
    cache = cache_schema.open_cache(study / (options or "none"))
    store, head = cache.store("mine", "given"), cache.stores("head")[0]
    np.testing.assert_allclose(store.features() @ head.weight.T + head.bias, store.logits(), atol=0.05)
    state = load_file(study / "w.safetensors")
    outputs = store.features() @ state["head.weight"].numpy().T + state["head.bias"].numpy()
    np.testing.assert_allclose(np.sort(outputs), np.sort(store.logits()), atol=0.05)
    if "timm" in options:
        column = store.dataset.class_names.index("c10")
        np.testing.assert_allclose(outputs[:, -1], store.logits()[:, column], atol=0.05)
    return dict(zip(store.dataset.class_names, store.logits().T, strict=True))


def test_outputs_go_to_the_classes_of_the_models_own_order(study: Path, run_extract) -> None:
    timms = logits_by_class(study, run_extract, "classes=given class_order=timm")
    plain = logits_by_class(study, run_extract, "classes=given class_order=torchvision")
    listed = logits_by_class(study, run_extract, "classes=names.txt")
    for names, found in (
        (sorted(NAMES, key=of_timm), timms),
        (sorted(NAMES), plain),
        ((study / "names.txt").read_text().split(), listed),
    ):
        first = np.stack([found[name] for name in names])
        reference = np.stack([timms[name] for name in sorted(NAMES, key=of_timm)])
        np.testing.assert_array_equal(first, reference)  # output by output


def test_where_the_orders_differ_the_user_is_asked(study: Path, run_extract) -> None:
    (study / "models.txt").write_text("timm:test_vit checkpoint=w.safetensors id=mine classes=given input_size=64\n")
    done = run_extract("--model-list", "models.txt", "--dataset", "given=given", "--workers", 0, cwd=study, code=1)
    assert "timm and torchvision sort these class folders differently" in done.stderr
    assert "say class_order=timm or class_order=torchvision in the line of mine" in done.stderr
    assert not list(study.glob("cache/**/*.zarr"))


def test_an_order_changed_in_the_line_is_another_store(study: Path, run_extract) -> None:
    for order in ("timm", "torchvision"):
        line = f"timm:test_vit checkpoint=w.safetensors id=mine classes=given class_order={order} input_size=64\n"
        (study / "models.txt").write_text(line)
        done = run_extract("--model-list", "models.txt", "--dataset", "given=given", "--workers", 0, cwd=study)
        assert "1 done, 0 sealed before" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("classes=pets class_order=timn", "class_order=timn is not one of timm, torchvision; did you mean timm"),
        ("class_order=timm", "is for a model whose line says classes=DATASET"),
        ("classes=names.txt class_order=timm", "are in the model's order; remove class_order="),
    ],
)
def test_an_order_that_says_nothing_is_refused(options: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_line(f"timm:test_vit allow_random=yes {options}", "models.txt:1")
