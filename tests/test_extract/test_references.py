"""Reference stores as the command makes them: of which rows, by flag or by file, whole or in halves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

import cache_schema
from cache_schema.reading.kinds.references import ReferenceStore
from cache_schema.writing.kinds.reference_accumulator import SUMS

MODEL = "timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=64\n"
WORDS = ("--model-list", "models.txt", "--batch-size", 8, "--workers", 1)


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    """The same pictures as a test set, as a training set, and as its two halves."""
    (tmp_path / "models.txt").write_text(MODEL)
    for number, image in enumerate(sorted(path for path in pets.rglob("*") if path.is_file())):
        half = tmp_path / ("first" if number % 2 else "second") / image.parent.name
        half.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, half / image.name)
    sets = {"pets": pets, "training": pets, "first": tmp_path / "first", "second": tmp_path / "second"}
    (tmp_path / "datasets.toml").write_text(
        "".join(f'[{name}]\npath = "{path}"\nclass_space = "pets"\n' for name, path in sets.items())
    )
    return tmp_path


def test_the_flag_keeps_sums_and_a_balanced_bank(study: Path, run_extract) -> None:
    flags = [word for name in ("training:per_class=4", "first", "second") for word in ("--reference", name)]
    run_extract(*WORDS, "--cache", "cache", *flags, cwd=study)
    cache = cache_schema.open_cache(study / "cache")
    assert {store.dataset.id for store in cache.stores("predictions")} == {"pets"}
    rows, found = cache.store("test_resnet", "pets"), cache.reference("test_resnet", "training")
    f, z, y = rows.features().astype(float), rows.logits().astype(float), rows.labels
    p, predicted = softmax(z, axis=1), z.argmax(axis=1)
    assert found.n == len(y) == 45
    # the prediction store rounds features and logits to float16
    for c in range(3):
        right = (y == c) & (predicted == c)
        assert found.class_count[c] == 15
        assert found.correct_count[c] == right.sum()
        assert found.predicted_count[c] == (predicted == c).sum()
        np.testing.assert_allclose(found.feature_sum[c], f[y == c].sum(axis=0), rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(found.correct_feature_sum[c], f[right].sum(axis=0), rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(found.softmax_sum[c], p[predicted == c].sum(axis=0), rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(found.second_moment, f.T @ f, rtol=1e-2, atol=5e-2)
    assert found.max_logit_sum == pytest.approx(z.max(axis=1).sum(), rel=2e-3)
    assert np.bincount(found.bank_labels).tolist() == [4, 4, 4]
    for feature, label in zip(found.bank_features, found.bank_labels, strict=True):
        near = np.abs(f - feature.astype(float)).max(axis=1)
        assert near.min() < 1e-2
        assert label in y[near < near.min() + 1e-6]

    whole = found.arrays()
    halves = ReferenceStore.merge([cache.reference("test_resnet", name) for name in ("first", "second")])
    for name in (*SUMS, "n", "max_logit_sum", "logsumexp_sum"):
        # the forward pass, not the sum, sees other batches: float32
        np.testing.assert_allclose(getattr(halves, name), getattr(whole, name), rtol=1e-4, atol=1e-4, err_msg=name)
    assert len(halves.bank_labels) == 45  # fewer than 50 a class: all of both


def test_unit_arrays_extend_a_cache_and_merge_exactly(study: Path, run_extract) -> None:
    words = (*WORDS, "--cache", "cache", "--reference", "training:per_class=4")
    run_extract(*words, cwd=study)
    plain = cache_schema.open_cache(study / "cache").reference("test_resnet", "training")
    assert plain.header["schema_version"] == 1
    dry = run_extract(*words, "--arrays", "unit", "--dry-run", cwd=study)
    assert "1 store to make, 3 sealed" in dry.stderr
    run_extract(*words, "--arrays", "unit", cwd=study)
    cache = cache_schema.open_cache(study / "cache")
    assert len(cache.stores("reference")) == 2
    found = cache.reference("test_resnet", "training")  # in place of the one that it extends
    assert found.identity != plain.identity
    for name, entry in plain.header["seal"]["arrays"].items():
        assert found.header["seal"]["arrays"][name] == entry
    f = cache.store("test_resnet", "pets").features().astype(float)
    u = f / np.linalg.norm(f, axis=1, keepdims=True)
    np.testing.assert_allclose(found.unit_second_moment, u.T @ u, rtol=1e-2, atol=1e-2)
    assert "arrays unit: in 1 of 1 reference" in run_extract("status", "cache", cwd=study).stdout
    plain.path.rename(study / "gone.zarr")  # what was not asked for does no harm
    done = run_extract(*words, cwd=study)
    assert "0 done, 4 sealed before" in done.stderr

    halves = [word for name in ("first", "second") for word in ("--reference", f"{name}:per_class=4")]
    run_extract(*WORDS, "--cache", "cache", *halves, "--arrays", "unit", cwd=study)
    cache = cache_schema.open_cache(study / "cache")
    parts = [cache.reference("test_resnet", name) for name in ("first", "second")]
    merged = cache_schema.merge_references(study / "cache", parts, dataset="both")
    np.testing.assert_array_equal(merged.bank_keys, found.bank_keys)
    np.testing.assert_array_equal(merged.bank_labels, found.bank_labels)
    # the forward pass sees other batches: float32
    np.testing.assert_allclose(merged.unit_second_moment, found.unit_second_moment, rtol=1e-4, atol=1e-4)
    failed = run_extract(*words, "--arrays", "units", cwd=study, code=2)
    assert "--arrays 'units' is not known; did you mean unit" in failed.stderr.strip().splitlines()[-1]


def test_the_file_says_the_same_as_the_flag(study: Path, run_extract) -> None:
    run_extract(*WORDS, "--cache", "one", "--reference", "training:per_class=4", cwd=study)
    text = (study / "datasets.toml").read_text()
    (study / "datasets.toml").write_text(
        text.replace("[training]\n", '[training]\nrole = "reference"\nper_class = 4\n')
    )
    run_extract(*WORDS, "--cache", "two", cwd=study)
    first, second = (
        cache_schema.open_cache(study / name).reference("test_resnet", "training") for name in ("one", "two")
    )
    assert first.digest == second.digest
    assert first.record["reference"] == second.record["reference"]
    assert first.record["reference"]["per_class"] == 4


def test_a_wrong_word_is_answered(study: Path, run_extract) -> None:
    for word, printed in (("training:perclass=4", "NAME:per_class=N"), ("trainign", "did you mean training")):
        failed = run_extract(*WORDS, "--cache", "cache", "--reference", word, cwd=study, code=2)
        assert printed in failed.stderr.strip().splitlines()[-1]
        assert "Traceback" not in failed.stderr
