"""One suite of what every backend must do; each backend inherits it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.format.centred import encode
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.convert import convert_store
from cache_schema.writing.validate import problems
from closerlook_common.errors import StoreExistsError, UserError

Write = Callable[..., cache_schema.PredictionStore]


class StoreConformance(ABC):
    """What a backend must do. A subclass names it."""

    @property
    @abstractmethod
    def backend(self) -> str: ...

    @property
    @abstractmethod
    def other(self) -> str: ...

    def test_what_is_written_is_read(self, write: Write, outputs: dict[str, Any], model: ModelCard) -> None:
        store = cache_schema.open_store(write(backend=self.backend).path)
        assert isinstance(store, cache_schema.PredictionStore)
        assert (store.kind, len(store), store.n_classes, store.feature_width) == ("predictions", 70, 10, 6)
        assert store.model == model
        assert store.dataset.id == "imagenet"
        assert store.image_ids == outputs["image_ids"]
        assert store.labels.dtype == np.int32
        np.testing.assert_array_equal(store.labels, outputs["labels"])
        np.testing.assert_array_equal(store.valid, outputs["valid"])
        keep = outputs["valid"]
        assert store.logits().dtype == np.float32
        finite = np.isfinite(outputs["logits"])
        given, got = np.where(finite, outputs["logits"], 0), np.where(finite, store.logits(), 0)
        top = outputs["logits"].max(axis=1, keepdims=True)
        bound = (top - given) * 2.0**-11 + 2.0**-24 + np.abs(top) * 2.0**-22
        assert (np.abs(got - given) <= bound)[keep].all()
        assert store.logits()[3, 4] == -np.inf
        np.testing.assert_array_equal(store.features()[keep], outputs["features"][keep].astype("f2").astype("f4"))
        assert np.isnan(store.logits()[~keep]).all()
        assert np.isnan(store.features()[~keep]).all()
        assert np.isnan(store.logit_centers()[~keep]).all()
        assert problems(store.path) == []

    def test_metadata_of_any_kind(self, write: Write, outputs: dict[str, Any]) -> None:
        metadata = write(backend=self.backend).metadata
        assert list(metadata) == list(outputs["metadata"])
        assert metadata["pose"].tolist() == outputs["metadata"]["pose"]
        for name, dtype in {"Size (px)": np.int64, "area": np.float64, "is_grey": np.bool_}.items():
            assert metadata[name].dtype == dtype
            np.testing.assert_array_equal(metadata[name], outputs["metadata"][name])

    def test_rows_in_blocks(self, write: Write, outputs: dict[str, Any]) -> None:
        store = write(backend=self.backend)
        whole, centred = store.logits(), store.centred_logits()
        assert centred.dtype == np.float16
        for rows in (1, 7, 70, 1000):
            blocks = list(store.blocks(rows, features=True))
            assert blocks[-1].stop == 70
            np.testing.assert_array_equal(np.concatenate([b.logits for b in blocks]), whole)
            np.testing.assert_array_equal(np.concatenate([b.features for b in blocks]), store.features())
            np.testing.assert_array_equal(np.concatenate([b.labels for b in blocks]), store.labels)
            np.testing.assert_array_equal(np.concatenate([b.valid for b in blocks]), store.valid)
            raw = list(store.blocks(rows, centred=True))
            np.testing.assert_array_equal(np.concatenate([b.logits for b in raw]), centred)
            np.testing.assert_array_equal(np.concatenate([b.centers for b in raw]), store.logit_centers())
        np.testing.assert_array_equal(store.logits(60, 999), whole[60:])
        assert store.logits(4, 4).shape == (0, 10)
        with pytest.raises(UserError, match="start must be"):
            store.logits(9, 3)

    def test_appending_in_any_pieces_gives_the_same_digest(
        self,
        tmp_path: Path,
        model: ModelCard,
        dataset: DatasetCard,
        outputs: dict[str, Any],
        write: Write,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("cache_schema.format.schema.ROWS_A_CHUNK", 8)  # 70 rows are then two shards
        whole = write(backend=self.backend, cache=tmp_path / "whole")
        for pieces in (1, 13, 64):
            with cache_schema.StoreWriter(
                tmp_path / str(pieces),
                model=model,
                dataset=dataset,
                n_images=70,
                n_classes=10,
                feature_width=6,
                image_ids=outputs["image_ids"],
                labels=outputs["labels"],
                metadata=outputs["metadata"],
                backend=self.backend,
            ) as writer:
                for start in range(0, 70, pieces):
                    rows = slice(start, start + pieces)
                    writer.append(outputs["logits"][rows], outputs["features"][rows], outputs["valid"][rows])
                writer.record["images_per_second"] = 12.5
            assert writer.store.digest == whole.digest
            assert writer.store.record["images_per_second"] == 12.5
            assert problems(writer.store.path) == []

    def test_rows_are_centred_over_the_classes_that_count(self, write: Write, outputs: dict[str, Any]) -> None:
        mask = DatasetCard(id="imagenet-a", class_mask=(1, 4, 8), role="shift")
        store = write(backend=self.backend, dataset=mask)
        kept = outputs["valid"]
        tops = store.centred_logits()[:, [1, 4, 8]].max(axis=1)
        assert (tops[kept] == 0).all()
        np.testing.assert_array_equal(store.logit_centers()[kept], outputs["logits"][:, [1, 4, 8]].max(axis=1)[kept])
        grouped = DatasetCard(id="objectnet", class_map=((0, 2), (5,)), role="shift")
        labels = np.where(outputs["labels"] > 1, 1, outputs["labels"])
        store = write(backend=self.backend, dataset=grouped, labels=labels)
        assert (store.centred_logits()[:, [0, 2, 5]].max(axis=1)[kept] == 0).all()
        assert store.dataset.class_map == ((0, 2), (5,))
        assert problems(store.path) == []

    def test_logits_or_features_alone(self, write: Write, tmp_path: Path) -> None:
        bare = write(backend=self.backend, features=None, cache=tmp_path / "a")
        assert (bare.has_logits, bare.has_features, bare.feature_width) == (True, False, None)
        with pytest.raises(UserError, match="no features"):
            bare.features()
        headless = write(backend=self.backend, logits=None, cache=tmp_path / "b")
        assert (headless.has_logits, headless.n_classes) == (False, None)
        with pytest.raises(UserError, match="no logits"):
            headless.logits()
        assert problems(bare.path) == problems(headless.path) == []

    def test_features_in_float32(self, write: Write, outputs: dict[str, Any]) -> None:
        big = outputs["features"] * np.float32(1e5)
        with pytest.raises(UserError, match=r"row \d+ \(n\d+.*too large for float16.*features_dtype=\"float32\""):
            write(backend=self.backend, features=big)
        store = write(backend=self.backend, features=big, features_dtype="float32")
        kept = outputs["valid"]
        np.testing.assert_array_equal(store.features()[kept], big[kept])
        assert problems(store.path) == []

    def test_a_published_store_is_never_overwritten(self, write: Write, outputs: dict[str, Any]) -> None:
        first = write(backend=self.backend)
        with pytest.raises(StoreExistsError, match="exists already"):
            write(backend=self.backend, logits=outputs["logits"] + 1)
        with pytest.raises(StoreExistsError):
            write(backend=self.other)  # the same store, whatever the format
        again = cache_schema.open_store(first.path)
        assert again.digest == first.digest
        replaced = write(backend=self.other, logits=outputs["logits"] * 2, overwrite=True)
        assert not first.path.exists()
        assert replaced.digest != first.digest
        assert [path for path in first.path.parent.iterdir() if path.name.startswith(".")] == []

    def test_an_exception_leaves_nothing(
        self, tmp_path: Path, model: ModelCard, dataset: DatasetCard, outputs: dict[str, Any]
    ) -> None:
        def fail() -> None:
            with cache_schema.StoreWriter(
                tmp_path,
                model=model,
                dataset=dataset,
                n_images=70,
                n_classes=10,
                image_ids=outputs["image_ids"],
                labels=outputs["labels"],
                backend=self.backend,
            ) as writer:
                writer.append(outputs["logits"][:30])
                raise RuntimeError("the model gave up")

        with pytest.raises(RuntimeError, match="gave up"):
            fail()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_too_few_or_too_many_rows(
        self, tmp_path: Path, model: ModelCard, dataset: DatasetCard, outputs: dict[str, Any]
    ) -> None:
        def writer() -> cache_schema.StoreWriter:
            return cache_schema.StoreWriter(
                tmp_path,
                model=model,
                dataset=dataset,
                n_images=70,
                n_classes=10,
                image_ids=outputs["image_ids"],
                labels=outputs["labels"],
                backend=self.backend,
            )

        short = writer()
        short.append(outputs["logits"][:69])
        with pytest.raises(UserError, match="69 rows were given, 70 were expected"):
            short.close()
        long = writer()
        long.append(outputs["logits"])
        with pytest.raises(UserError, match="71 rows were given, 70 were expected"):
            long.append(outputs["logits"][:1])
        long.abort()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_converting_keeps_the_digest(self, write: Write, tmp_path: Path) -> None:
        store = write(backend=self.backend, record={"device": "cpu", "images_per_second": 3.25})
        there = convert_store(store, tmp_path / "there", self.other)
        back = convert_store(there, tmp_path / "back", self.backend)
        for copy in (there, back):
            assert copy.digest == store.digest
            assert copy.header["seal"]["arrays"] == store.header["seal"]["arrays"]
            assert (copy.record, copy.identity, copy.model) == (store.record, store.identity, store.model)
            assert problems(copy.path) == []
        assert there.path.suffix != store.path.suffix

    def test_head(self, tmp_path: Path, model: ModelCard) -> None:
        rng = np.random.default_rng(1)
        weight = rng.normal(size=(4, 6)).astype(np.float32)
        head = cache_schema.write_head(
            tmp_path,
            model=model,
            class_space="tiny",
            class_names=["a", "b", "bb", "crâne"],
            weight=weight,
            bias=[1, 2, 3, 4],
            prompt_set="openai-80",
            templates=("a {}.", "the {}."),
            logit_scale=50.0,
            logit_bias=-10.0,
            normalize_features=True,
            residual=1e-6,
            text_sum=weight * 2,
            backend=self.backend,
        )
        again = cache_schema.open_cache(tmp_path).head(model.id, "tiny")
        assert isinstance(again, cache_schema.HeadStore)
        assert again.class_names == ("a", "b", "bb", "crâne")
        assert (again.prompt_set, again.templates, again.n_templates) == (
            "openai-80",
            ("a {}.", "the {}."),
            2,
        )
        assert (again.logit_scale, again.logit_bias, again.residual) == (50.0, -10.0, 1e-6)
        features = rng.normal(size=(5, 6)).astype(np.float32)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(again.logits(features), 50 * unit @ weight.T + [1, 2, 3, 4], rtol=1e-5)
        np.testing.assert_array_equal(again.text_sum, weight * 2)
        assert head.path.parent.name == "heads"
        assert problems(head.path) == []
        with pytest.raises(UserError, match="features are"):
            again.logits(features[:, :5])

    def test_reference(self, tmp_path: Path, model: ModelCard) -> None:
        rng = np.random.default_rng(2)
        bank = encode(rng.normal(size=(8, 3)).astype(np.float32))
        parts = cache_schema.ReferenceArrays(
            n=20,
            class_count=np.array([5, 7, 8]),
            feature_sum=rng.normal(size=(3, 4)),
            correct_count=np.array([1, 2, 3]),
            correct_feature_sum=rng.normal(size=(3, 4)),
            predicted_count=np.array([6, 6, 8]),
            softmax_sum=rng.random((3, 3)),
            second_moment=rng.normal(size=(4, 4)),
            max_logit_sum=1.5,
            logsumexp_sum=2.5,
            bank_features=rng.normal(size=(8, 4)).astype(np.float16),
            bank_logits=bank.logits,
            bank_logit_center=bank.centers,
            bank_labels=np.arange(8, dtype=np.int32) % 3,
        )
        card = DatasetCard(id="train", role="reference")
        store = cache_schema.write_reference(tmp_path, model=model, dataset=card, arrays=parts, backend=self.backend)
        assert store.arrays().n == store.n == 20
        assert len(store) == 3
        np.testing.assert_array_equal(store.softmax_sum, parts.softmax_sum)
        assert store.correct_logit_sum is None
        twice = cache_schema.ReferenceStore.merge([store, store])
        assert (twice.n, twice.max_logit_sum) == (40, 3.0)
        np.testing.assert_array_equal(twice.second_moment, parts.second_moment * 2)
        assert twice.bank_features.shape == (16, 4)
        np.testing.assert_array_equal(twice.decoded_bank_logits()[:8], store.decoded_bank_logits())
        with pytest.raises(UserError, match="cannot be merged"):
            cache_schema.ReferenceStore.merge([store, replace(parts, second_moment=np.zeros((5, 5)))])
        with pytest.raises(AttributeError, match="no_such"):
            _ = store.no_such
        of_bank = ("bank_features", "bank_logits", "bank_logit_center", "bank_labels")
        empty = {name: getattr(parts, name)[:0] for name in of_bank}
        bare = cache_schema.write_reference(
            tmp_path / "bare", model=model, dataset=card, arrays=replace(parts, **empty), backend=self.backend
        )
        assert bare.bank_features.shape == (0, 4)
        assert problems(store.path) == problems(bare.path) == []

    def test_summary(self, tmp_path: Path, model: ModelCard, dataset: DatasetCard) -> None:
        columns = {
            "top": np.arange(15, dtype=np.int16).reshape(5, 3),
            "confidence": np.array([0.1, np.nan, 0.3, 0.4, 0.5], np.float32),
            "valid": np.array([True, False, True, True, True]),
            "rank": np.arange(5, dtype=np.int8),
            "metadata.pose": list("abcde"),
        }
        store = cache_schema.write_summary(
            tmp_path, model=model, dataset=dataset, columns=columns, variant="hard", backend=self.backend
        )
        assert store.columns() == tuple(columns)
        assert store.variant == "hard"
        for name, values in columns.items():
            column = store.column(name)
            assert name == "metadata.pose" or column.dtype == np.asarray(values).dtype
            np.testing.assert_array_equal(column, values)
        with pytest.raises(UserError, match="did you mean confidence"):
            store.column("confidance")
        assert problems(store.path) == []

    def test_texts(self, tmp_path: Path, model: ModelCard, dataset: DatasetCard) -> None:
        rng = np.random.default_rng(3)
        values = rng.normal(size=(4, 6))
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        text = ["a dog", "", "ein Hund\nläuft", "犬"]
        store = cache_schema.write_texts(
            tmp_path,
            model=model,
            dataset=dataset,
            embeddings=values,
            text=text,
            image_index=[0, 0, 1, 3],
            backend=self.backend,
        )
        assert store.text == text
        np.testing.assert_array_equal(store.image_index, [0, 0, 1, 3])
        np.testing.assert_array_equal(store.embeddings, values.astype(np.float32))
        assert problems(store.path) == []
        with pytest.raises(UserError, match="embedding 2 has norm"):
            cache_schema.write_texts(
                tmp_path,
                model=model,
                dataset=dataset,
                embeddings=values * [[1], [1], [3], [1]],
                text=text,
                image_index=[0, 0, 1, 3],
                overwrite=True,
            )

    def test_a_forked_reader_works(self, write: Write, run_python: Callable[..., Any]) -> None:
        """A process that has read a store and forks: the child must neither hang nor err."""
        store = write(backend=self.backend)
        done = run_python(FORK, store.path)
        assert done.stdout.split() == ["child", store.digest[:8], "parent", "0"], done.stderr


FORK = """
import os, signal, sys, warnings
import cache_schema, numpy as np
from cache_schema.backends import zarr_columns
zarr_columns.SERIAL_BYTES = -1  # small arrays too go through the threads
store = cache_schema.open_store(sys.argv[1])
whole = store.logits()
warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks among threads, which is the point here
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert np.array_equal(store.logits(), whole, equal_nan=True)
    assert np.array_equal(cache_schema.open_store(sys.argv[1]).logits(), whole, equal_nan=True)
    print("child", store.digest[:8], flush=True)
    os._exit(0)
print("parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class TestZarr(StoreConformance):
    backend = "zarr"
    other = "hdf5"


class TestHdf5(StoreConformance):
    backend = "hdf5"
    other = "zarr"
