"""The report as a file: every number packed, nothing that can leave its block, small enough to send."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analyze.cli import main
from analyze.report.pack import VALUE_BITS, pack, rounded, shuffled
from analyze.report.page import FOLDER, escaped_json, render, write_report
from analyze.results import ResultRow, to_frame, write_results


def test_packing_keeps_every_number_and_its_provenance(results: pl.DataFrame) -> None:
    packed = pack(results)
    assert sorted(packed["models"]["id"]) == sorted(results["model"].unique())
    texts = [q["text"] for q in packed["quantities"]]
    assert len(set(texts)) == len(texts)
    assert {q["metric"] for q in packed["quantities"]} == set(results["metric"])
    assert packed["ground"] == "imagenet-val"


@pytest.mark.parametrize("bits", [8, 12, VALUE_BITS])
def test_rounding_is_to_the_nearest_step(bits: int) -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.normal(size=2000) * 10.0 ** rng.integers(-6, 6, 2000)).astype(np.float32)
    numbers[:3] = [np.nan, np.inf, 0]
    out = rounded(numbers, bits)
    assert np.isnan(out[0])
    assert np.isinf(out[1])
    assert out[2] == 0
    assert np.abs(out[3:] / numbers[3:] - 1).max() <= 2.0 ** -(bits + 1) * 1.001


def test_missing_numbers_keep_their_reason() -> None:
    frame = to_frame(
        [
            ResultRow(model="a", dataset="d", metric="top1", value=0.5, role="id"),
            ResultRow(model="b", dataset="d", metric="top1", value=0.6, role="id"),
            ResultRow(model="b", dataset="d", metric="ece", reason="no logits"),
            ResultRow(model="a", dataset="d", metric="ece", value=0.1),
        ]
    )
    packed = pack(frame)
    assert [packed["reasons"][r] for _, _, r in packed["missing"]] == ["no logits"]


def test_a_number_tells_the_version_of_its_own_metric(results: pl.DataFrame) -> None:
    """Other numbers of the metric may be of another suite: on a subset, by a factor, on another dataset."""
    plain = (pl.col("subset") == "") & (pl.col("factor") == "")
    first = str(results.filter(plain, pl.col("metric") == "top1")["dataset"][0])
    own = plain & (pl.col("dataset") == first)
    packed = pack(results.with_columns(pl.when(own).then(3).otherwise(1).cast(pl.Int64).alias("metric_version")))
    given = {
        (q["metric"], q["dataset"], q["variant"]): v
        for q, v in zip(packed["quantities"], packed["versions"], strict=True)
    }
    assert given["top1", first, ""] == [3]
    assert [1] in given.values()
    assert [1, 3] not in given.values()


def test_zero_shot_models_and_classifiers_share_a_column() -> None:
    frame = to_frame(
        [
            ResultRow(
                model="clip", group="clip-zero-shot", dataset="d", metric="top1", value=0.5, role="id", head="openai-80"
            ),
            ResultRow(
                model="clip", group="clip-zero-shot", dataset="d", metric="top1", value=0.4, role="id", head="photo-1"
            ),
            ResultRow(model="net", dataset="d", metric="top1", value=0.6, role="id"),
            # no head made this one, and it must not take the place of the default
            ResultRow(model="clip", group="clip-zero-shot", dataset="c", metric="recall", value=0.3, role="pairs"),
        ]
    )
    texts = [q["text"] for q in pack(frame)["quantities"]]
    assert sorted(texts) == ["recall@c", "top1@d", "top1@d[head=photo-1]"]


def test_no_data_can_leave_its_block(hostile_table: pl.DataFrame, hostile_names: list[str]) -> None:
    text = escaped_json({"names": hostile_names})
    assert not set("<>&\u2028\u2029") & set(text)
    page = render(pack(hostile_table))
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "\\u003cimg src=x" in page


def test_the_policy_names_the_hash_of_what_stands_in_the_page(results: pl.DataFrame) -> None:
    import base64
    import hashlib

    page = render(pack(results))
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert body
        digest = base64.b64encode(hashlib.sha256(body.group(1).encode()).digest()).decode()
        assert f"{tag}-src &#x27;sha256-{digest}&#x27;" in page


def test_the_largest_study_stays_under_five_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 210 * 13 * 40
    index = np.arange(n)
    frame = pl.DataFrame(
        {
            "model": [f"some_architecture_name_{i:03d}.some_tag_in1k" for i in index // 520],
            "dataset": [f"set-{i}" for i in index // 40 % 13],
            "metric": [f"metric_{i}" for i in index % 40],
            "value": rng.random(n),
            "low": rng.random(n),
            "high": rng.random(n),
            "n": rng.integers(1000, 50_000, n),
            "store": [f"{i:064x}" for i in rng.integers(0, 2**60, 210 * 13)[index // 40]],
            "direction": ["higher"] * n,
            "metric_version": [1] * n,
            "role": ["id"] * n,
            "group": ["supervised-in1k"] * n,
        }
    )
    from analyze.results import conform

    size = write_report(pack(conform(frame.with_columns(options=pl.lit(""), reason=pl.lit("")))), tmp_path / "r.html")
    assert size < 5_000_000


def test_command(results: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_results(results, tmp_path / "r.parquet")
    assert main(["report", str(source), "-o", str(tmp_path / "out" / "r.html"), "--title", "<b>"]) == 0
    assert "36 models" in capsys.readouterr().out
    assert "<title>&lt;b&gt;</title>" in (tmp_path / "out" / "r.html").read_text()
    assert main(["report", str(tmp_path / "none.parquet")]) == 2
    assert shuffled(np.zeros(3, np.float32)) == shuffled(np.zeros(3, np.float32))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2 of two colours ``#rrggbb`` or ``#rgb``."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def blended(colour: tuple[int, int, int], strength: float, ground: str) -> str:
    digits = ground[1:] if len(ground) == 7 else "".join(2 * digit for digit in ground[1:])
    below = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    return "#" + "".join(f"{round(a * strength + b * (1 - strength)):02x}" for a, b in zip(colour, below, strict=True))


def test_words_can_be_read_in_both_themes() -> None:
    style = (FOLDER / "report.css").read_text()
    found = [dict(re.findall(r"--([\w-]+):(#\w+)", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", style)]
    light, dark = found[0], {**found[0], **found[1]}
    script = (FOLDER / "factors.js").read_text()
    strength = float(re.search(r"\(([\d.]+) \* strength\)", script)[1])
    for theme in (light, dark):
        for ground in ("bg", "panel", "soft"):
            for words in ("ink", "quiet"):
                assert contrast(theme[words], theme[ground]) >= 4.5, (words, ground)
        assert contrast(theme["accent"], theme["bg"]) >= 4.5
        for colour in ((200, 60, 45), (35, 105, 190)):
            assert str(list(colour)) in script
            assert contrast(theme["ink"], blended(colour, strength, theme["panel"])) >= 4.5
