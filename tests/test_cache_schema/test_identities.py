"""Identity and names: pinned values, which may be added to but never edited."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema.format.identities import IDENTITY_VERSION, canonical_json, identity, prediction_identity
from cache_schema.format.naming import slug, store_name, suffix_of
from closerlook_common.errors import UserError

FIELDS = {
    "library": "timm",
    "name": "resnet50",
    "tag": "a1_in1k",
    "weights_digest": "ab" * 32,
    "preprocessing": {"crop": 224, "mean": (0.485, 0.456, 0.406), "interpolation": "bicubic"},
    "precision": "fp32",
    "dataset_id": "imagenet",
    "dataset_digest": "cd" * 32,
    "class_space": "imagenet-1k",
    "class_mask": (1, 5),
    "class_map": None,
    "prompt_set_digest": "",
    "logits_kind": "logits",
    "features_dtype": "float16",
    "forward_version": 1,
}
PINNED = {1: "d23a0f526ad7897546b5a12d31a46ee8d81a4b8de2bb91390c76768368c673dd"}
PINNED_PLAIN = {1: "561a7fed3aac6375f81bfa3332ad345f0dde162cd662b076b31b2a9e6ff8a272"}


def test_pinned() -> None:
    """If this fails, every store that exists counts as another one: bump IDENTITY_VERSION and add a line."""
    assert prediction_identity(**FIELDS) == PINNED[IDENTITY_VERSION]
    assert identity({"model": "ViT-B/32", "ä": [1, 2.5, None, True]}) == PINNED_PLAIN[IDENTITY_VERSION]


def test_every_field_counts_and_none_may_be_left_out() -> None:
    names = set(inspect.signature(prediction_identity).parameters)
    assert names == set(FIELDS)
    changed = {
        "preprocessing": {"crop": 225},
        "class_mask": None,
        "class_map": ((1,), (2,)),
        "forward_version": 2,
    }
    seen = {prediction_identity(**FIELDS)}
    for name in names:
        seen.add(prediction_identity(**{**FIELDS, name: changed.get(name, f"{FIELDS[name]}x")}))
    assert len(seen) == len(names) + 1
    with pytest.raises(TypeError, match="precision"):
        prediction_identity(**{name: value for name, value in FIELDS.items() if name != "precision"})


def test_canonical_json() -> None:
    assert canonical_json({"b": (1, 2), "a": "ä", "c": {"z": None, "y": True}}) == (
        '{"a":"ä","b":[1,2],"c":{"y":true,"z":null}}'
    )
    assert canonical_json([np.float64(0.5), np.int32(3), np.bool_(True), Path("a/b"), np.arange(2)]) == (
        '[0.5,3,true,"a/b",[0,1]]'
    )
    for bad in (float("nan"), np.float32("inf")):
        with pytest.raises(UserError, match=r"rate\.x\[1\] is"):
            canonical_json({"rate": {"x": [1, bad]}})
    with pytest.raises(UserError, match="device is a object"):
        canonical_json({"device": object()})


@given(
    st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False)))
)
def test_order_of_fields_does_not_matter(fields: dict[str, object]) -> None:
    backwards = dict(reversed(list(fields.items())))
    assert identity(fields) == identity(backwards)


@given(st.text(max_size=300))
def test_a_slug_is_a_file_name_and_nothing_else(name: str) -> None:
    made = slug(name)
    assert made == Path(made).name
    assert 0 < len(made) <= 89
    assert made == made.lower()
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not made.startswith((".", "-"))
    assert slug(made) == made


@given(st.lists(st.text(max_size=12), min_size=2, max_size=8, unique=True))
def test_different_names_have_different_slugs(names: list[str]) -> None:
    assert len({slug(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("ViT-B-32/openai", "vit-b-32-openai-200b2ac0"),
        ("vit-b-32/openai", "vit-b-32-openai-1c8239af"),
        ("../../etc/passwd", "etc-passwd-3754d6cb"),
        ("con", "con-1143da2b"),
        ("", "x-e3b0c442"),
    ],
)
def test_slugs_are_pinned(name: str, made: str) -> None:
    assert slug(name) == made


def test_store_names() -> None:
    assert store_name("ImageNet-A", "0123456789abcdef" * 4) == f"{slug('ImageNet-A')}-01234567.zarr"
    assert store_name("d", "0123456789abcdef" * 4, "hdf5") == "d-01234567.h5"
    with pytest.raises(UserError, match="no backend 'hdf'; did you mean hdf5"):
        suffix_of("hdf")
