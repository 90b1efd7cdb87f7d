"""Arrays that are stored when asked for: what a plan says of a cache with and without them, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.format.identities import prediction_identity
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace
from extract.datasets.base import Dataset
from extract.libraries import ModelSpec, registry
from extract.models.base import Prepared
from extract.passes.sinks import ReferenceSink
from extract.planning.arrays import arrays_of
from extract.planning.estimate import head_bytes, store_bytes
from extract.planning.jobs import HeadJob, Job, head_identity, job_identity
from extract.planning.options import RunOptions
from extract.planning.plan import MISSING, SEALED, make_plan
from extract.preprocess import Geometry, Preprocessing

N, C, D = 40, 3, 5
SPACE = ClassSpace("pets", ("cat", "dog", "fox"))
GEOMETRY = Geometry("squash", (8, 8), (8, 8), "bilinear")
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, D)).astype(np.float32)
LOGITS = RNG.normal(size=(N, C)).astype(np.float32)


def model() -> Prepared:
    card = ModelCard(
        id="m", library="timm", name="resnet18", class_space="pets", head_kind="linear", weights_digest="w" * 64,
        feature_width=D, extra={"n_classes": C},
    )  # fmt: skip
    preprocessing = Preprocessing(GEOMETRY, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Prepared(ModelSpec("timm", "resnet18"), card, preprocessing, None)


def dataset(role: str = "reference") -> Dataset:
    labels = (np.arange(N) % C).astype(np.int32)
    card = DatasetCard(id=role, role=role, class_space="pets", n_classes=C, digest="d" * 64, n_images=N)
    paths = tuple(f"{i}.png" for i in range(N))
    return Dataset(card=card, root=Path(), paths=paths, labels=labels, sizes=np.ones(N, np.int64), class_space=SPACE)


def planned(cache: Path, arrays: tuple[str, ...], role: str = "reference") -> Job:
    (job,) = make_plan([model()], [dataset(role)], RunOptions(cache=cache, arrays=arrays)).jobs
    return job


def run(cache: Path, arrays: tuple[str, ...]) -> None:
    """Write what a run would write of the reference."""
    job, options = planned(cache, arrays), RunOptions(cache=cache, arrays=arrays)
    plain = job_identity(job, "w" * 64, options, ())
    record: dict[str, Any] = {} if plain == job.identity else {"extends": plain}
    sink = ReferenceSink(options, job.model.card, job.dataset, job.identity, record)
    sink.append(FEATURES, LOGITS, np.ones(N, np.bool_))
    sink.finish({})


@pytest.mark.parametrize("first", [(), ("unit",)])
def test_a_cache_without_them_is_extended_and_one_with_them_is_done(first: tuple[str, ...], tmp_path: Path) -> None:
    assert planned(tmp_path, ("unit",)).state == planned(tmp_path, ()).state == MISSING
    run(tmp_path, first)
    assert planned(tmp_path, ()).state == SEALED
    assert planned(tmp_path, ("unit",)).state == (SEALED if first else MISSING)
    if not first:
        run(tmp_path, ("unit",))
        assert planned(tmp_path, ("unit",)).state == SEALED
        assert planned(tmp_path, ("unit",)).identity != planned(tmp_path, ()).identity
    cache = cache_schema.open_cache(tmp_path)
    found = cache.reference("m", "reference")  # in place of the one that it extends
    u = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    np.testing.assert_allclose(found.unit_second_moment, u.T @ u, rtol=1e-5)
    assert found.header["schema_version"] == 2
    for store in cache.stores("reference"):
        assert cache.reference("m", "reference", identity=store.identity).identity == store.identity
        for name, entry in store.header["seal"]["arrays"].items():
            assert found.header["seal"]["arrays"][name] == entry


def test_what_was_not_asked_for_changes_no_identity(tmp_path: Path) -> None:
    job = planned(tmp_path, ())
    assert job.identity == prediction_identity(
        library="timm", name="resnet18", tag="", weights_digest="w" * 64, precision="fp32",
        preprocessing=model().preprocessing.to_record(), dataset_id="reference", dataset_digest="d" * 64,
        class_space="pets", class_mask=None, class_map=None, prompt_set_digest="", logits_kind="reference:50",
        features_dtype="float16", forward_version=registry.get("timm").forward_version("resnet18", "fp32"),
    )  # fmt: skip
    assert planned(tmp_path, ("unit",), "id").identity == planned(tmp_path, (), "id").identity


def test_the_estimate_counts_them(tmp_path: Path) -> None:
    job = planned(tmp_path, ())
    more = store_bytes(job, 2, ("unit",)) - store_bytes(job, 2)
    assert more == pytest.approx(8 * (C * D + D * D) + 8 * 50 * C)


def test_text_heads_with_them_are_other_stores_and_do_for_those_without(tmp_path: Path) -> None:
    space, prompts = ClassSpace("pets", ("cat", "dog", "fox")), prompt_set("photo-1")
    card = replace(model().card, head_kind="zero-shot", class_space="", extra={})
    zero_shot = replace(model(), card=card)

    def head(arrays: tuple[str, ...]) -> HeadJob:
        options = RunOptions(cache=tmp_path, arrays=arrays, prompts=(prompts,))
        (found,) = make_plan([zero_shot], [dataset("id")], options).heads
        return found

    plain, richer = head(()).identity, head(("texts",)).identity
    assert plain == head_identity(zero_shot, "w" * 64, space, prompts) != richer
    assert head(("unit",)).identity == plain
    own = head_identity(zero_shot, "w" * 64, space, None)
    assert head_identity(zero_shot, "w" * 64, space, None, ("texts",)) == own
    assert head(()).state == head(("texts",)).state == MISSING
    cache_schema.write_head(
        tmp_path, model=card, class_space="pets", class_names=space.names, weight=np.eye(3, D), prompt_set="photo-1",
        templates=prompts.templates, text_embeddings=np.eye(3, D)[None], identity=richer,
    )  # fmt: skip
    assert head(()).state == head(("texts",)).state == SEALED
    assert head(()).identity == richer
    more = head_bytes(head(()), ("texts",)) - head_bytes(head(()))
    assert more == 2 * len(prompts.templates) * C * D


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    assert arrays_of(" unit,") == arrays_of(["unit", "unit"]) == ("unit",)
    with pytest.raises(UserError, match=r"`arrays` 'units' is not known; did you mean unit"):
        arrays_of("units")
