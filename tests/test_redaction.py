"""Secrets of addresses and tokens are in nothing that is printed or kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from cache_schema.format.failures import record_failure
from closerlook_common.redaction import redact

SECRET = "Se5ame-0pen"


@pytest.mark.parametrize(
    "text",
    [
        f"analyze metrics https://me:{SECRET}@host/cache -o r.parquet",
        f"analyze metrics 'https://host/cache?X-Amz-Signature={SECRET}&X-Amz-Date=1'",
        f"https://host/cache%3Fsig={SECRET}",
        f"https://{SECRET}@host/x",
        f"no result table at http:/me:{SECRET}@host/x",
        f"s3://KEY:{SECRET}@bucket/cache cannot be read",
        f"open_clip:x hf_token={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"{{'secret': '{SECRET}', \"token\": \"{SECRET}\"}}",
        f"password={SECRET}; next",
        f"Authorization: Bearer {SECRET}",
        "model hf_abcdefghijklmnopqrstuv is gated",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_secrets_are_redacted(text: str) -> None:
    found = redact(text)
    assert SECRET not in found
    assert "hf_abc" not in found
    assert "AKIA" not in found
    assert "***" in found
    assert redact(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "extract --model-list models.txt --dataset pets=/data/pets --cache cache",
        "did you mean s3://bucket/cache?",
        "https://user:password@host/cache",
        "context of 77 tokens; tokenizer=bert max_tokens 5",
        "laion-*, resnet?? and https://host/a/b",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text("ab:/?@=&.-_ 'x", max_size=60), st.text("QZJX", min_size=6, max_size=9))
def test_no_password_of_an_address_is_left(path: str, secret: str) -> None:
    assert secret not in redact(f"cannot read https://user:{secret}@host/{path}")
    assert secret not in redact(f"{path} https://host/c?sig={secret}")


def test_long_texts_take_no_long_time() -> None:
    begun = time.monotonic()
    for piece in ("a_", "a-", "http://", "://", "token", "hf_", "x"):
        redact(piece * (20_000 // len(piece)))
    assert time.monotonic() - begun < 10


def test_records_of_failures_and_provenance_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_failure(tmp_path, "m", "d", f"https://u:{SECRET}@host/x?token={SECRET} is gone")
    assert all(SECRET not in path.read_text() for path in tmp_path.rglob("*.json"))
    pytest.importorskip("torch")
    from extract.passes.provenance import describe_run

    monkeypatch.setattr(sys, "argv", ["/bin/extract", "--cache", f"https://u:{SECRET}@h/c?s={SECRET}"])
    assert SECRET not in str(describe_run(device="cpu", device_name="", precision="fp32", batch_size=1))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_commands_on_a_cache_at_an_address_keep_no_secret(
    tmp_path: Path, serve: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the commands print and write is searched."""
    pytest.importorskip("aiohttp")
    from analyze.cli import main
    from cache_schema.cli import main as schema

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 40)
    for model in ("a", "b"):
        cache_schema.write_store(
            tmp_path / "cache",
            model=cache_schema.ModelCard(id=model),
            dataset=cache_schema.DatasetCard(id="val", role="id"),
            logits=rng.normal(size=(40, 4)).astype(np.float32),
            labels=labels,
        )
    web = serve(tmp_path / "cache")
    host = web.address.removeprefix("http://")
    address = f"http://reader:{SECRET}@{host}?X-Amz-Signature={SECRET}&v=1"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    runs = [
        (main, ["metrics", address, "-o", "out/r.parquet", "--log", "out/log.txt"], 0),
        (main, ["report", address, "-o", "out/report.html"], 0),
        (main, ["figures", address, "-o", "out/figures", "--format", "svg", "--only", "reliability"], 0),
        (main, ["summarize", address, "--to", "out/summaries"], 0),
        (main, ["show", address, "nobody"], 2),
        (main, ["show", address, "a"], 0),
        (main, ["compare", address, "a", "b", "--bootstrap", "5", "--pair-by-row", "-o", "out/c.csv"], 0),
        (main, ["ood", address], 2),
        (main, ["retrieval", address], 2),
        (main, ["prompts", address, "-o", "out/p.parquet"], 2),
        (main, ["table", address], 2),
        (schema, ["convert", address, "out/converted", "--to", "hdf5"], 0),
        (schema, ["pull", address, "out/pulled"], 0),
        (schema, ["check", address], 0),
    ]
    texts = []
    for program, words, code in runs:
        try:
            assert program(words) == code, (words, capsys.readouterr())
        except SystemExit as stopped:
            texts.append(str(stopped.code))
    web.fault = lambda *_: 403
    main(["metrics", address, "-o", "out/r2.parquet"])
    captured = capsys.readouterr()
    texts += [captured.out, captured.err]
    for folder in ("out", "mirror"):
        for path in (tmp_path / folder).rglob("*"):
            texts.append(str(path))
            if path.suffix == ".parquet":
                import polars as pl

                texts.append(str(pl.read_parquet(path).to_dict(as_series=False)))
            elif path.is_file():
                texts.append(path.read_bytes().decode("latin-1"))
    assert len(texts) > 30
    for text in texts:
        assert SECRET not in text
        assert "reader:" not in text
