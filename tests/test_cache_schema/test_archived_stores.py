"""Stores of earlier versions are read by this one, number for number.

Each version's archive was made when it was current: one store of every kind in either format, with the arrays that the
version brought, by

    python tests/test_cache_schema/test_archived_stores.py tests/test_cache_schema/archived/schema-2.tar.xz
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cache_schema
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import KINDS, SCHEMA_VERSION
from cache_schema.reading.cache import Cache
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.writing.validate import problems

ARCHIVES = sorted(Path(__file__).with_name("archived").glob("schema-*.tar.xz"))
N, C, D = 11, 4, 3
BACKENDS = ("zarr", "hdf5")
NAMES = ["tench", "goldfish", "great white shark", "Ärmelkanal"]
IDS = [f"n{i % C:08}/bild ü {i}.JPEG" for i in range(N)]
VALID = np.arange(N) != 5
LABELS = np.where(np.arange(N) % C == 3, -1, np.arange(N) % C).astype(np.int32)
METADATA = {
    "pose": ["top", "side", ""] * 3 + ["ünder", "top"],
    "size": np.arange(N) * 7,
    "area": np.arange(N) / 8,
    "grey": np.arange(N) % 2 == 0,
}
WEIGHT = (np.arange(C * D, dtype=np.float32).reshape(C, D) - 5) / 4
TEXTS = np.eye(C, D, dtype=np.float16)[None]
BIAS = np.arange(C, dtype=np.float32) / 2
DATASET = DatasetCard(id="imagenet-x", class_space="four", digest="d" * 64)


def model(backend: str) -> ModelCard:
    """Return the card; one model a format."""
    return ModelCard(id=f"ViT/{backend}", library="open_clip", name="ViT", tag="laion", logit_scale=100.0)


def whole(rows: int, columns: int) -> NDArray[np.float32]:
    """Return numbers that float16 holds exactly, centred or not."""
    i, j = np.indices((rows, columns))
    return (((7 * i + 5 * j) % 13 - 6) / 4).astype(np.float32)


def version_of(path: Path) -> int:
    """Return the version of the schema that an archive, or the folder of its stores, is of."""
    return int(path.name.partition(".")[0].removeprefix("schema-"))


def reference(version: int) -> ReferenceAccumulator:
    """Return the statistics of the same rows."""
    accumulator = ReferenceAccumulator(C, D, per_class=2, seed=3, unit=version >= 2)
    rows = VALID & (LABELS >= 0)
    ids = [name for name, row in zip(IDS, rows, strict=True) if row]
    accumulator.update(whole(N, D)[rows], whole(N, C)[rows], LABELS[rows], ids=ids)
    return accumulator


def parts() -> dict[str, NDArray[Any]]:
    """Return the further arrays of the prediction store."""
    return {
        "patch_features": whole(N, D) / 2, "patch_score": np.arange(1, N + 1) / 16, "patch_index": np.arange(N),
        "token_class": whole(N, 7), "token_mean": whole(N, 7) / 4, "block_class": whole(N, 28).reshape(N, 4, 7),
        "view_features": whole(N, 2 * D).reshape(N, 2, D), "view_entropies": np.arange(2.0 * N).reshape(N, 2) / 8,
        "view_indices": np.arange(2 * N).reshape(N, 2),
    }  # fmt: skip


PARTS = {
    "patches": {"tokens": "values of the last block", "temperature": 1.0},
    "tokens": {"layer": "ln_post"},
    "blocks": {"numbers": [2, 5, 8, 11], "of": 12},
    "views": {"of": 64, "seed": 0, "scale": [0.08, 1.0], "ratio": [0.75, 1.25], "flip": 0.5},
}


def write(cache: Path, backend: str, version: int) -> None:
    """Write every kind of store, with all arrays of a version of the schema."""
    more: dict[str, Any] = {"parts": PARTS, "arrays": parts()} if version >= 2 else {}
    common: dict[str, Any] = {"model": model(backend), "backend": backend}
    cache_schema.write_store(
        cache, **common, dataset=DATASET, logits=whole(N, C), features=whole(N, D), labels=LABELS, image_ids=IDS,
        valid=VALID, metadata=METADATA, record={"command": "extract --model-list models.txt"}, **more,
    )  # fmt: skip
    cache_schema.write_head(
        cache, **common, class_space="four", class_names=NAMES, weight=WEIGHT, bias=BIAS, prompt_set="study-5",
        templates=["a photo of a {}."], logit_scale=100.0, normalize_features=True, text_sum=WEIGHT, n_templates=1,
        text_embeddings=TEXTS if version >= 2 else None,
    )  # fmt: skip
    cache_schema.write_reference(cache, **common, dataset=DATASET, arrays=reference(version).arrays())
    columns = {"confidence": np.arange(N, dtype=np.float32) / 16, "top5": whole(N, 5), "pose": METADATA["pose"]}
    cache_schema.write_summary(cache, **common, dataset=DATASET, columns=columns)
    cache_schema.write_texts(
        cache, **common, dataset=DATASET, embeddings=np.eye(D, dtype=np.float32), text=["a", "b", "ç"],
        image_index=np.array([0, 0, 2], np.int32),
    )  # fmt: skip


def main(target: Path) -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "w:xz") as archive:
        for backend in BACKENDS:
            write(Path(folder), backend, version_of(target))
        for path in sorted(Path(folder).rglob("*")):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            if path.is_file():
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(info, file)


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def archived(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / request.param.name.partition(".")[0], filter="data")
    return cache_schema.open_cache(tmp_path / request.param.name.partition(".")[0])


def test_every_version_up_to_this_one_is_archived() -> None:
    assert [path.name for path in ARCHIVES] == [f"schema-{v}.tar.xz" for v in range(1, SCHEMA_VERSION + 1)]


def test_nothing_is_wrong_with_them(archived: Cache) -> None:
    stores = [path for path in archived.path.rglob("*") if path.suffix in (".zarr", ".h5")]
    assert len(stores) == len(BACKENDS) * len(KINDS)
    assert [what for path in stores for what in problems(path)] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions(archived: Cache, backend: str) -> None:
    store = archived.store(model(backend).id, DATASET.id)
    expected = whole(N, C)
    expected[~VALID] = np.nan
    np.testing.assert_array_equal(store.logits(), expected)
    np.testing.assert_array_equal(store.features()[VALID], whole(N, D)[VALID])
    np.testing.assert_array_equal(store.labels, LABELS)
    np.testing.assert_array_equal(store.valid, VALID)
    assert list(store.image_ids) == IDS
    for name, values in METADATA.items():
        assert list(store.metadata[name]) == list(values), name
    assert store.model.to_record() == model(backend).to_record()
    assert store.record["command"] == "extract --model-list models.txt"


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_predictions(archived: Cache, backend: str) -> None:
    store = archived.store(model(backend).id, DATASET.id)
    assert store.parts == (tuple(PARTS) if version_of(archived.path) >= 2 else ())
    for name, values in parts().items() if store.parts else ():
        got = store.read(name)
        np.testing.assert_array_equal(got[VALID], values[VALID], err_msg=name)
        assert (got[~VALID] == -1 if got.dtype.kind == "i" else np.isnan(got[~VALID])).all()
    for part in store.parts:
        assert store.details[part] == PARTS[part]


@pytest.mark.parametrize("backend", BACKENDS)
def test_head(archived: Cache, backend: str) -> None:
    head = archived.head(model(backend).id, "four", "study-5")
    np.testing.assert_array_equal(head.weight, WEIGHT)
    np.testing.assert_array_equal(head.bias, BIAS)
    assert list(head.class_names) == NAMES
    assert head.has("text_embeddings") == (version_of(archived.path) >= 2)
    if head.has("text_embeddings"):
        np.testing.assert_array_equal(head.text_embeddings([0]), TEXTS)
    assert (head.logit_scale, head.normalize_features, list(head.templates)) == (100.0, True, ["a photo of a {}."])


@pytest.mark.parametrize("backend", BACKENDS)
def test_reference(archived: Cache, backend: str) -> None:
    version = version_of(archived.path)
    store, now = archived.reference(model(backend).id, DATASET.id), reference(version).arrays()
    assert store.header["schema_version"] == version
    assert store.n == now.n == int((VALID & (LABELS >= 0)).sum())
    for name in ("class_count", "feature_sum", "second_moment", "softmax_sum", "bank_features", "bank_labels"):
        np.testing.assert_allclose(getattr(store.arrays(), name), getattr(now, name), rtol=1e-12)
    for name in ("bank_keys", "bank_per_class", "bank_seed", "unit_features", "unit_feature_sum", "unit_second_moment"):
        assert (getattr(store, name) is None) == (version < 2), name
        if version >= 2:
            np.testing.assert_allclose(getattr(store, name), getattr(now, name), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_summary_and_texts(archived: Cache, backend: str) -> None:
    summary = archived.summary(model(backend).id, DATASET.id)
    np.testing.assert_array_equal(summary.column("confidence"), np.arange(N) / 16)
    np.testing.assert_array_equal(summary.column("top5"), whole(N, 5))
    assert list(summary.column("pose")) == METADATA["pose"]
    texts = archived.texts(model(backend).id, DATASET.id)
    np.testing.assert_array_equal(texts.embeddings, np.eye(D))
    assert (texts.text, texts.image_index.tolist()) == (["a", "b", "ç"], [0, 0, 2])


def test_the_same_outputs_are_the_same_stores_today(archived: Cache, tmp_path: Path) -> None:
    """Same names, so the same identities, and the same digests: nothing that is finished is run again."""
    for backend in BACKENDS:
        write(tmp_path / "now", backend, version_of(archived.path))
    digests = [
        {
            path.relative_to(cache).as_posix(): cache_schema.open_store(path).digest
            for path in cache.rglob("*")
            if path.suffix in (".zarr", ".h5")
        }
        for cache in (archived.path, tmp_path / "now")
    ]
    assert digests[0] == digests[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
