"""Caches at an address: a local S3 server and a local static server stand for the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, CorruptStoreError, UserError

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")

Write = Callable[..., cache_schema.PredictionStore]
Capture = pytest.CaptureFixture[str]
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["whole files", "parts of files"])
def web(request: pytest.FixtureRequest, serve: Callable[..., Any], tmp_path: Path) -> Any:
    """Return a static server of ``tmp_path / "cache"``."""
    server = serve(tmp_path / "cache")
    server.ranges = request.param == "parts of files"
    return server


def same(remote: cache_schema.Cache, stores: list[Any]) -> None:
    found = {store.digest: store for store in remote.stores()}
    assert set(found) == {store.digest for store in stores}
    for store in stores:
        for name in store.array_names:
            np.testing.assert_array_equal(found[store.digest].read(name), store.read(name))


def test_s3_round_trip(stores: list[Any], bucket: Any, tmp_path: Path, capsys: Capture) -> None:
    cache = str(tmp_path / "cache")
    assert main(["push", cache, bucket.cache, "--read-back"]) == 0
    assert "3 stores pushed, 0 there already, 0 failed" in capsys.readouterr().out
    assert main(["push", cache, bucket.cache]) == 0
    assert "0 stores pushed, 3 there already" in capsys.readouterr().out
    remote = cache_schema.open_cache(bucket.cache)
    same(remote, stores)
    assert [card.id for card in remote.datasets()] == ["imagenet", "other"]
    assert remote.store("ViT-B-32/openai", "imagenet").image_ids == stores[0].image_ids
    assert main(["show", bucket.cache]) == 0
    assert "3 stores of 1 model" in capsys.readouterr().out
    assert main(["pull", bucket.cache, str(tmp_path / "pulled")]) == 0
    assert "3 stores pulled" in capsys.readouterr().out
    assert main(["pull", bucket.cache, str(tmp_path / "pulled")]) == 0
    assert "0 stores pulled, 3 there already" in capsys.readouterr().out
    pulled = cache_schema.open_cache(tmp_path / "pulled")
    same(pulled, stores)
    assert [what for store in pulled.stores() for what in problems(store.path)] == []


def test_a_cache_opened_again_is_read_again(stores: list[Any], bucket: Any, tmp_path: Path) -> None:
    assert main(["push", str(tmp_path / "cache"), bucket.cache, "--summaries"]) == 0
    same(cache_schema.open_cache(bucket.cache), stores[2:])
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 0
    same(cache_schema.open_cache(bucket.cache), stores)


def test_one_shard_is_fetched_where_its_rows_are_asked_for(
    stores: list[Any], web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_schema.reading.places.files.SMALL_FILE", 0)
    store = cache_schema.open_cache(web.address).store("ViT-B-32/openai", "imagenet")
    assert not any("/c/" in path for path in web.files())  # headers alone
    np.testing.assert_array_equal(store.centred_logits(40, 50), stores[0].centred_logits(40, 50))
    shards = [path.partition(".zarr/")[2] for path in web.files() if "/c/" in path]
    assert shards == ["logits/c/1/0"]  # rows 32 to 63
    again = cache_schema.open_cache(web.address).store("ViT-B-32/openai", "imagenet")
    np.testing.assert_array_equal(again.centred_logits(35, 60), stores[0].centred_logits(35, 60))
    assert len([path for path in web.files() if "/c/" in path]) == 1  # kept on this machine
    same(cache_schema.open_cache(web.address), stores)


def big(cache: Path, backend: str) -> Any:
    """Write 50,000 rows of noise, which compresses badly: 2.4 MB of logits."""
    rng = np.random.default_rng(3)
    return cache_schema.write_store(
        cache,
        model=cache_schema.ModelCard(id="m"),
        dataset=cache_schema.DatasetCard(id="d"),
        logits=rng.normal(size=(50_000, 24)).astype(np.float32),
        features=rng.normal(size=(50_000, 120)).astype(np.float32),
        labels=rng.integers(0, 24, 50_000),
        backend=backend,
    )


def test_a_hundred_rows_cost_a_part_of_a_zarr_store(serve: Callable[..., Any], tmp_path: Path) -> None:
    store = big(tmp_path / "cache", "zarr")
    web = serve(tmp_path / "cache")
    remote = cache_schema.open_cache(web.address).store("m", "d")
    opened = web.n_bytes()
    assert opened < 100_000
    np.testing.assert_array_equal(remote.features(20_000, 20_100), store.features(20_000, 20_100))
    # A shard is 8,192 rows of 240 bytes before compression.
    assert web.n_bytes() - opened < 2.1e6 < store.n_bytes() / 6
    before = len(web.asked)
    np.testing.assert_array_equal(remote.features(20_010, 20_020), store.features(20_010, 20_020))
    assert len(web.asked) == before
    # What has come is not fetched again, by another process neither.
    fetched = web.n_bytes()
    again = cache_schema.open_cache(web.address).store("m", "d")
    np.testing.assert_array_equal(again.features(20_000, 20_100), store.features(20_000, 20_100))
    assert web.n_bytes() - fetched < 100_000


def test_an_hdf5_store_is_listed_by_its_end_and_fetched_once(serve: Callable[..., Any], tmp_path: Path) -> None:
    store = big(tmp_path / "cache", "hdf5")
    web = serve(tmp_path / "cache")
    remote = cache_schema.open_cache(web.address).store("m", "d")
    assert web.n_bytes() < 100_000
    np.testing.assert_array_equal(remote.features(20_000, 20_100), store.features(20_000, 20_100))
    assert store.n_bytes() <= web.n_bytes() < store.n_bytes() + 200_000
    fetched = web.n_bytes()
    np.testing.assert_array_equal(remote.logits(), store.logits())
    assert web.n_bytes() == fetched
    again = cache_schema.open_cache(web.address).store("m", "d")  # as another process would
    np.testing.assert_array_equal(again.labels, store.labels)
    np.testing.assert_array_equal(remote.labels, store.labels)  # the other reader's use changed the copy's time
    assert web.n_bytes() - fetched < 100_000
    next((tmp_path / "mirror").rglob("*.h5")).unlink()  # as making room in the mirror does
    np.testing.assert_array_equal(remote.features(0, 9), store.features(0, 9))


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_round_trips_do_not_add_up(backend: str, serve: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        cache_schema.write_summary(
            tmp_path / "cache",
            model=cache_schema.ModelCard(id=f"model-{i}"),
            dataset=cache_schema.DatasetCard(id="d"),
            columns={f"column-{k}": rng.normal(size=50) for k in range(20)},
            backend=backend,
        )
    web = serve(tmp_path / "cache")
    web.latency = 0.05
    remote = cache_schema.open_cache(web.address)
    for store in remote.stores():
        for k in range(20):
            store.column(f"column-{k}")
            if store.model.id == "model-0" and k == 0:
                web.latency = 0.0  # the rest is counted, not waited for
    # Index, root, models, kinds, headers (HDF5: length, end), then one wave; a slow machine starts some late. One
    # after another they would be more than two a store.
    assert web.one_after_another() <= 24 < len(web.waits) / 2
    assert len(web.files()) <= 24 * (43 if backend == "zarr" else 4) + 3 + 2 * 24


def test_http_without_listings_needs_the_index(stores: list[Any], web: Any, tmp_path: Path, capsys: Capture) -> None:
    names = cache_schema.open_cache(web.address).place.names()
    web.listings = False
    assert main(["show", web.address]) == 2
    printed = capsys.readouterr().err
    assert "there is no index.json, which 'python -m cache_schema push CACHE file:///FOLDER" in printed
    assert printed.count("\n") == 1
    assert main(["push", str(tmp_path / "cache"), (tmp_path / "served").as_uri()]) == 0
    web.folder = tmp_path / "served"
    same(cache_schema.open_cache(web.address), stores)
    (tmp_path / "served" / "index.json").write_text(json.dumps({"stores": names[:1]}))
    assert cache_schema.open_cache(web.address).place.names() == names[:1]


@pytest.mark.parametrize(
    "bad",
    ['{"stores": ["../../x.zarr"]}', '{"stores": ["a/b/c/d.zarr"]}', '{"stores": ["a/..\\\\..\\\\x.zarr"]}',
     '{"stores": ["C:/x.zarr"]}', '{"stores": ["/etc/x.zarr"]}', '{"stores": [".hidden/x.zarr"]}', '{"stores": 3}',
     "[]", "{"],
)  # fmt: skip
def test_an_index_cannot_lead_out_of_the_cache(bad: str, serve: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").write_text(bad)
    with pytest.raises(UserError, match=r"index\.json"):
        cache_schema.open_cache(serve(tmp_path / "cache").address).stores()


def test_a_seal_cannot_lead_out_of_the_store(stores: list[Any], web: Any, tmp_path: Path, capsys: Capture) -> None:
    """A store that somebody crafts: well sealed, and its files are to be written elsewhere."""
    from cache_schema.backends.zarr_v3 import FILES, root_document
    from cache_schema.format.schema import FORMAT
    from cache_schema.format.seal import dump_with_digest

    root = stores[0].path / "zarr.json"
    attributes = json.loads(root.read_text())["attributes"]
    files = attributes[FILES]["files"]
    files["../../../../evil"] = files.pop("labels/c/0")
    root.write_bytes(dump_with_digest(root_document(attributes[FORMAT], files)))
    with pytest.raises(CacheError, match="which is not a file of a store"):
        cache_schema.open_cache(web.address).store("ViT-B-32/openai", "imagenet").logits(0, 8)
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    assert "lists '../../../../evil', which is not a file of a store" in capsys.readouterr().out
    assert not list(tmp_path.rglob("evil"))


def test_changed_bytes_are_found_on_the_way(stores: list[Any], web: Any, tmp_path: Path, capsys: Capture) -> None:
    shard = stores[0].path / "logits/c/0/0"
    raw = bytearray(shard.read_bytes())
    raw[50] ^= 1
    shard.write_bytes(raw)
    remote = cache_schema.open_cache(web.address)
    with pytest.raises(CorruptStoreError, match="not those that were sealed"):
        remote.store("ViT-B-32/openai", "imagenet").logits(0, 8)
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    out = capsys.readouterr().out
    assert "logits/c/0/0: its bytes are not those that were sealed" in out
    assert "2 stores pulled, 0 there already, 1 failed" in out
    same(cache_schema.open_cache(tmp_path / "pulled"), stores[1:])
    assert main(["check", web.address]) == 1
    assert "3 stores checked, 1 problem" in capsys.readouterr().out
    (stores[0].path / "zarr.json").write_text("{}")
    remote = cache_schema.open_cache(web.address)
    assert len(remote.stores()) == 2
    assert len(remote.refused()) == 1


@pytest.mark.parametrize("part", range(6))
def test_a_changed_byte_of_an_hdf5_store_is_found(
    part: int, write: Write, serve: Callable[..., Any], tmp_path: Path
) -> None:
    store = write(backend="hdf5")
    raw = store.path.read_bytes()
    web = serve(tmp_path / "cache")
    for web.ranges in (True, False):
        changed = bytearray(raw)
        changed[100 + part * (len(raw) - 200) // 6] ^= 16
        store.path.write_bytes(changed)
        remote = cache_schema.open_cache(web.address)
        if not remote.stores():
            assert len(remote.refused()) == 1
            continue
        with pytest.raises(CacheError, match="bytes"):
            remote.stores()[0].read("labels")


def test_commands_take_addresses_of_caches_and_stores(
    stores: list[Any], web: Any, tmp_path: Path, capsys: Capture
) -> None:
    one = f"{web.address}/{stores[0].path.parent.name}/{stores[0].path.name}"
    assert main(["show", one]) == 0
    assert stores[0].digest in capsys.readouterr().out
    assert main(["show", web.address, "--json"]) == 0
    paths = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert one in paths
    assert main(["check", web.address]) == 0
    assert "3 stores checked, 0 problems" in capsys.readouterr().out
    assert main(["check", one, "--bytes-only"]) == 0
    assert "1 store checked, 0 problems" in capsys.readouterr().out
    for source, n in ((web.address, 3), (one, 1)):
        assert main(["convert", source, str(tmp_path / f"to-{n}"), "--to", "hdf5"]) == 0
        assert f"{n} store{'s' * (n > 1)} converted" in capsys.readouterr().out
    same(cache_schema.open_cache(tmp_path / "to-3"), stores)
    np.testing.assert_array_equal(cache_schema.open_store(one).labels, stores[0].labels)
    with pytest.raises(UserError, match=f"^{one} holds no text"):
        cache_schema.open_store(one).read("text")


def test_folders_by_file_and_memory_addresses(stores: list[Any], tmp_path: Path) -> None:
    import fsspec

    same(cache_schema.open_cache((tmp_path / "cache").as_uri()), stores)
    assert not (tmp_path / "mirror").exists()
    assert main(["push", str(tmp_path / "cache"), "memory://some where/cache"]) == 0
    same(cache_schema.open_cache("memory://some where/cache"), stores)
    assert main(["pull", "memory://some where/cache", str(tmp_path / "pulled")]) == 0
    same(cache_schema.open_cache(tmp_path / "pulled"), stores)
    fsspec.filesystem("memory").rm("/some where", recursive=True)


def test_names_with_spaces_percent_and_umlauts(stores: list[Any], serve: Callable[..., Any], tmp_path: Path) -> None:
    odd = tmp_path / "100% größe #1" / "a b+c"
    odd.parent.mkdir()
    (tmp_path / "cache").rename(odd)
    for folder in odd.iterdir():
        if folder.is_dir():
            folder.rename(odd / "model 50%25 ü")
    web = serve(tmp_path)
    here = cache_schema.open_cache(odd)
    for address in (
        f"{web.address}/100%25%20gr%C3%B6%C3%9Fe%20%231/a%20b+c",
        f"{web.address}/100%25 größe %231/a b+c/",
    ):
        remote = cache_schema.open_cache(address)
        assert remote.place.names() == here.place.names()
        same(remote, here.stores())
