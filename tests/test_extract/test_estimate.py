"""What a plan costs: operations against a formula, bytes and hours against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cache_schema.format.records import DatasetCard
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace
from extract.datasets.base import Dataset
from extract.libraries import prepare
from extract.models.base import Prepared
from extract.planning.estimate import (
    FASTEST_RATE,
    LOGIT_BYTES,
    OPERATIONS_PER_SECOND,
    ROW_BYTES,
    count_texts,
    estimate,
    head_bytes,
    store_bytes,
)
from extract.planning.operations import count_operations
from extract.planning.options import RunOptions
from extract.planning.plan import Plan, make_plan
from extract.zoo.model_list import parse_line

SPACE = ClassSpace("three", ("cat", "dog", "fox"))
VISION = {"image_size": 64, "layers": 3, "width": 96, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))


@pytest.fixture
def clip(tmp_path: Path) -> Prepared:
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
    (tmp_path / "clip.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 64}}))
    (line,) = parse_line("open_clip:clip config=clip.json allow_random=yes id=clip", folder=tmp_path)
    return prepare(line)


def dataset(name: str, n: int, **keys: object) -> Dataset:
    space = keys.pop("space", SPACE)
    assert space is None or isinstance(space, ClassSpace)
    role = str(keys.pop("role", "id"))
    card = DatasetCard(id=name, role=role, class_space=space.id if space else "", n_images=n, digest="0" * 64)
    return Dataset(
        card=card, root=Path(), paths=tuple(map(str, range(n))), labels=np.zeros(n, np.int32),
        sizes=np.ones(n, np.int64), class_space=space, **keys,
    )  # type: ignore[arg-type]  # fmt: skip


def planned(models: list[Prepared], sets: list[Dataset], *prompts: str, cache: Path = Path("none")) -> Plan:
    return make_plan(models, sets, RunOptions(cache=cache, prompts=tuple(map(prompt_set, prompts))))


def test_operations_are_those_of_the_formula(clip: Prepared) -> None:
    """Multiply-adds of a vision transformer, by hand; each is two operations."""
    width, layers, side, patch = 96, 3, 64, 16
    tokens = (side // patch) ** 2 + 1
    embedding = (side // patch) ** 2 * patch * patch * 3 * width
    block = tokens * (3 + 1 + 8) * width**2 + 2 * tokens**2 * width
    assert list(count_operations([clip])) == [2 * (embedding + layers * block + width * 24)]


def test_counts_of_published_models_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = parse_line("timm:resnet18 allow_random=yes input_size=224")
    (counted,) = count_operations([prepare(line)])
    assert counted == pytest.approx(2 * 1.814e9, rel=0.01)  # as published with the architecture: 1.8 GMACs
    monkeypatch.setattr("extract.planning.operations._count", lambda *_: pytest.fail("counted twice"))
    assert list(count_operations([prepare(line)])) == [counted]


def test_bytes_and_hours_are_sums_by_hand(clip: Prepared) -> None:
    pairs = dataset("pairs", 10, role="pairs", space=None, captions=tuple((f"a {i}", f"b {i}") for i in range(10)))
    plan = planned([clip], [dataset("val", 1000), dataset("more", 500), pairs], "photo-1", "openai-7")
    printed = estimate(plan, None, rate=100)
    assert printed.images == 1510
    texts = 3 * 8 + 20  # 'a photo of a {}.' is not among the seven
    assert printed.texts == texts
    rows = (1500 * (3 * LOGIT_BYTES + 24 * 2 + ROW_BYTES)) + 10 * (24 * 2 + ROW_BYTES) + 20 * 24 * 4
    heads = 2 * 3 * 24 * 4 * 2
    assert printed.gigabytes == pytest.approx((rows + heads) / 1e9)
    (image,) = count_operations([clip])
    assert image is not None
    block = 16 * 12 * 32**2 + 2 * 16**2 * 32
    assert printed.hours == pytest.approx((1510 + texts * 2 * block / image) / 100 / 3600)
    assert printed.basis == "100 images/s as given by --rate (1)"
    assert sum(map(head_bytes, plan.heads)) == heads
    assert sum(store_bytes(job) for job in plan.jobs) == pytest.approx(rows)


def test_texts_of_several_sets_are_counted_once(clip: Prepared) -> None:
    plan = planned([clip], [dataset("val", 5)], "openai-80", "study-30", "openai-7")
    assert count_texts(plan.jobs, plan.heads) == {"clip": 80 * 3}


def test_hours_follow_the_arithmetic_and_have_a_ceiling(clip: Prepared) -> None:
    (line,) = parse_line("timm:vit_large_patch14_clip_336 allow_random=yes num_classes=3 classes=three")
    large = prepare(line)
    (operations,) = count_operations([large])
    assert operations is not None
    printed = estimate(planned([large], [dataset("val", 3600)]), None)
    assert printed.hours == pytest.approx(operations / OPERATIONS_PER_SECOND)
    assert "factor of two" in printed.basis
    small = estimate(planned([clip], [dataset("val", 3600)]), None)
    assert small.hours == pytest.approx(3600 / FASTEST_RATE / 3600)


def test_nothing_to_do_costs_nothing(clip: Prepared) -> None:
    printed = estimate(planned([clip], []), None)
    assert (printed.images, printed.texts, printed.gigabytes, printed.hours) == (0, 0, 0, 0)
    assert printed.basis == "nothing is left to do"
