"""Logits that are kept between fits and statistics: read once where there is room, again where there is none."""

from __future__ import annotations

import pytest

import cache_schema
from analyze.evaluate import evaluate


@pytest.fixture
def logit_reads(monkeypatch):
    """Return a list of the datasets whose logits are read from a store, one entry a read."""
    from cache_schema.reading.store import Store

    reads = []
    read = Store.read

    def counting(self, name, start=0, stop=None):
        if name == "logits":
            reads.append(self.dataset.id)
        return read(self, name, start, stop)

    monkeypatch.setattr(Store, "read", counting)
    return reads


def test_an_id_set_is_decompressed_once_for_its_fits_and_its_statistics(toy_store, tmp_path, logit_reads):
    for model in ("m", "n"):
        toy_store(model=model)
    logit_reads.clear()
    evaluate(cache_schema.open_cache(tmp_path / "cache"), only=["calibration", "conformal"])
    assert logit_reads == ["val", "val"]


def test_of_several_id_sets_as_many_are_kept_as_there_is_room_for(toy_store, tmp_path, monkeypatch, logit_reads):
    for name in ("a", "b", "c"):
        size = 2 * toy_store(n=60, dataset=name, role="id").logits().size
    logit_reads.clear()
    monkeypatch.setattr("analyze.evaluate.cases.KEPT_BYTES", 2 * size)
    evaluate(cache_schema.open_cache(tmp_path / "cache"), only=["calibration", "conformal"])
    assert [logit_reads.count(name) for name in ("a", "b")] == [1, 1]
    assert logit_reads.count("c") > 1
