"""Addresses as they are typed: mistakes, secrets, and a machine without the packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.places.addresses import Address, is_plain_name, meant_address
from cache_schema.reading.places.opening import local_path
from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError

Capture = pytest.CaptureFixture[str]
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("s3:/bucket/cache", "did you mean s3://bucket/cache?"),
        ("https:host/cache", "did you mean https://host/cache?"),
        ("nosuch://bucket/cache", "nosuch://bucket/cache cannot be opened"),
        ("s3://", "has no bucket"),
        ("gs:///", "has no bucket"),
        ("https://", "has no host"),
        ("s3://KEY:SESAME@bucket/cache", "keys do not belong in an address"),
        (r"C:\caches\mine", "no cache at"),
        (r"\\server\share\cache", "no cache at"),
    ],
)
def test_mistakes_are_one_line(address: str, printed: str, capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    for words in (["show", address], ["check", address], ["pull", address, str(tmp_path / "x")]):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "SESAME" not in error
        if words[0] == "show" or "\\" not in address:
            assert printed in error


def test_where_nothing_can_be_pushed(tmp_path: Path, write: Callable[..., Any], capsys: Capture) -> None:
    pytest.importorskip("aiohttp")
    write()
    for address, printed in (
        ("bucket/cache", "for a folder say file:///"),
        ("s3:/bucket/cache", "did you mean s3://bucket/cache?"),
        ("https://host/cache", "a web server cannot be written to"),
    ):
        assert main(["push", str(tmp_path / "cache"), address]) == 2
        error = capsys.readouterr().err
        assert printed in error
        assert error.count("\n") == 1


def test_a_bucket_that_is_not_there(bucket: Any, tmp_path: Path, write: Callable[..., Any], capsys: Capture) -> None:
    write()
    gone = "s3://no-such-bucket/x"
    for words in (["show", gone], ["push", str(tmp_path / "cache"), gone], ["pull", gone, str(tmp_path / "y")],
                  ["show", bucket.cache + "/nothing/"]):  # fmt: skip
        assert main(words) == 2, words
        assert capsys.readouterr().err.count("\n") == 1
    import fsspec

    names = [path.rpartition("/")[2] for path in fsspec.filesystem("s3", skip_instance_cache=True).ls("")]
    assert "no-such-bucket" not in names, "a mistyped bucket is not made"
    assert not (tmp_path / "y").exists()


def test_credentials_that_are_wrong(
    bucket: Any, tmp_path: Path, write: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    bucket.fault = lambda *_: 403
    for words in (["show", bucket.cache], ["push", str(tmp_path / "cache"), bucket.cache],
                  ["pull", bucket.cache, str(tmp_path / "y")]):  # fmt: skip
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert "access is denied" in error
        assert "AWS_PROFILE" in error
        assert error.count("\n") == 1


def test_secrets_are_neither_printed_nor_kept(
    write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("aiohttp")
    store = write()
    web = serve(tmp_path / "cache")
    host = web.address.removeprefix("http://")
    address = f"http://reader:pass-word@{host}?sig=a%2Fb-signature&v=1"
    assert main(["show", address]) == 0
    assert main(["show", address, "--json"]) == 0
    assert main(["check", address]) == 0
    assert main(["pull", address, str(tmp_path / "pulled")]) == 0
    assert all("sig=a%2Fb-signature" in path or "sig=a/b-signature" in path for path in web.files())
    remote = cache_schema.open_cache(address)
    texts = [repr(remote), remote.title, remote.stores()[0].title]
    web.fault = lambda *_: 403
    assert main(["show", address]) == 2
    web.fault = lambda method, path, before: 500 if ".zarr" in path else ""
    texts += [bad.reason for bad in cache_schema.open_cache(address).refused()]
    captured = capsys.readouterr()
    texts += [captured.out, captured.err]
    for folder in (tmp_path / "mirror", tmp_path / "pulled"):
        texts += [str(path) for path in folder.rglob("*")]
        texts += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    for text in texts:
        for secret in ("pass-word", "b-signature", "reader:"):
            assert secret not in text
    assert store.digest in captured.out


@given(st.text(min_size=1))
def test_a_plain_name_stays_in_its_folder(name: str) -> None:
    if is_plain_name(name):
        assert Path("/a/b", name).parent == Path("/a/b")
        assert name not in (".", "..")
        assert "\\" not in name
        assert ":" not in name


@given(st.text("abc%/?#@: &=", max_size=20), st.text("JQXZ", min_size=5, max_size=12))
def test_a_password_is_in_no_title(path: str, password: str) -> None:
    address = Address(f"https://user:{password}@host/{path}")
    assert password not in address.title
    assert password not in address.hide(f"error at https://user:{password}@host/{path}")


def test_paths_of_file_addresses() -> None:
    assert local_path("file:///a b/c") == Path("/a b/c")
    assert local_path("file:///C:/caches") == Path("C:/caches")
    assert local_path("file://localhost/a") == Path("/a")
    assert local_path("file://localhost/C:/caches") == Path("C:/caches")
    assert meant_address("/plain/path") == meant_address("C:\\x") == meant_address("s3://fine") == ""


@pytest.mark.parametrize(
    ("address", "package"),
    [("s3://b/c", "s3fs"), ("gs://b/c", "gcsfs"), ("https://h/c", "aiohttp"), ("s3://b/c", "fsspec")],
)
def test_the_extra_that_is_missing_is_named(
    address: str, package: str, run_python: Callable[..., Any], tmp_path: Path
) -> None:
    script = f"""
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
from cache_schema.cli import main
from analyze.cli import main as analyze
codes = [main(['show', {address!r}]), main(['pull', {address!r}, 'x']), analyze(['metrics', {address!r}, '-o', 'x'])]
print(codes)
"""
    result = run_python(script)
    assert result.stdout == "[2, 2, 2]\n", result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3
    extra = {"fsspec": "remote", "s3fs": "s3", "gcsfs": "gs", "aiohttp": "web"}[package]
    assert all(install_line(extra) in line for line in lines)


def test_options_of_the_user_come_first(serve: Callable[..., Any], write: Callable[..., Any], tmp_path: Path) -> None:
    """``open_cache(address, **options)`` and FSSPEC_... reach fsspec beside the patience that is set here."""
    pytest.importorskip("aiohttp")
    write()
    place = cache_schema.open_cache(serve(tmp_path / "cache").address, client_kwargs={"headers": {"X-Who": "me"}}).place
    kwargs = place.wire.fs.client_kwargs
    assert kwargs["headers"] == {"X-Who": "me"}
    assert kwargs["timeout"].total is None
    assert len(place.names()) == 1


def test_an_index_of_a_server_is_json(serve: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "cache").mkdir()
    web = serve(tmp_path / "cache")
    with pytest.raises(UserError, match="lists no stores and has no index"):
        cache_schema.open_cache(web.address).stores()
    (tmp_path / "cache" / "index.json").write_text(json.dumps({"stores": []}))
    assert cache_schema.open_cache(web.address).stores() == []
