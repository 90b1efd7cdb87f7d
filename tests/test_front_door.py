"""What the README says of the project is true, and is short."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from analyze.tables.writers import to_html
from extract.datasets.recipes import all_recipes
from extract.planning.estimate import LOGIT_BYTES, ROW_BYTES, TYPICAL_WIDTH
from extract.zoo.lists import named_list

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_is_short_and_has_one_picture() -> None:
    assert len(README.splitlines()) < 120
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).exists()


def test_the_line_of_facts_is_true() -> None:
    (line,) = re.findall(r"^Python 3.11 or newer · (.+)$", README, re.MULTILINE)
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert "typed" in line
    assert (ROOT / "closerlook" / "py.typed").exists()
    tested = re.findall(r"3\.\d+", line)
    assert tested[0] == "3.11"
    assert {f"Programming Language :: Python :: {version}" for version in tested} <= set(PROJECT["classifiers"])


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_what_the_study_costs_is_what_the_plan_estimates() -> None:
    study = tomllib.loads((ROOT / "extract" / "studies" / "closer-look.toml").read_text(encoding="utf-8"))
    counts = [all_recipes()[name].expected[0] for name in study["extract"]["only"]]
    found = re.search(
        r"15 test sets hold ([\d,]+) images: \*\*([\d.]+) GB a model, (\d+) GB for (\d+)\.\*\* .* (\d+) MB a model\.",
        README,
    )
    assert found is not None
    images, of_model, of_all, models, summaries = (float(text.replace(",", "")) for text in found.groups())
    assert len(counts) == 15
    assert models == len(named_list("closer-look"))
    assert sum(counts) == pytest.approx(images, rel=0.001)
    gigabytes = sum(counts) * (1000 * LOGIT_BYTES + 2 * TYPICAL_WIDTH + ROW_BYTES) / 1e9
    assert of_model == pytest.approx(gigabytes, rel=0.05)
    assert of_all == pytest.approx(models * gigabytes, rel=0.05)
    assert 60 * sum(counts) <= summaries * 1e6 <= 100 * sum(counts)


def test_site_and_tables_have_the_colours_and_the_type_of_the_report() -> None:
    site = (ROOT / "docs" / "site.css").read_text(encoding="utf-8")
    report = (ROOT / "analyze" / "report" / "report.css").read_text(encoding="utf-8")
    assert re.findall(r"--md-typeset-a-color: (#\w+)", site) == re.findall(r"--accent:(#\w+)", report)
    assert re.findall(r"--md-default-bg-color: (#\w+)", site) == re.findall(r"--bg:(#\w+)", report)[1:]
    (family,) = re.findall(r"font:15px/1.5 ([^}]+)}", report)
    (of_site,) = re.findall(r"--md-text-font: ([^;]+);", site)
    assert of_site.replace(", ", ",") == family
    tables = to_html([])
    assert f"font:15px/1.5 {family}}}" in tables
    inks, backgrounds = (re.findall(rf"--{name}:(#\w+)", report) for name in ("ink", "bg"))
    assert re.findall(r"color:(#\w+);background:(#\w+)", tables) == list(zip(inks, backgrounds, strict=True))
