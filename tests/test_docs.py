"""The site and the README: their blocks run on the miniature as printed; pages build strictly and need no network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from site_builder import site_builder

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = ("bash", "python")
NEEDS = "# needs: "
ELSEWHERE = r"/data/|s3://|gs://|https://|--engine|--devices|@closer-look|make "
"""What a command says that cannot run here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def needs(self) -> str:
        """What the block says that it needs; empty where it runs here."""
        first = self.text.split("\n", 1)[0]
        return first.removeprefix(NEEDS) if first.startswith(NEEDS) else ""


def blocks(page: Path) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = page.read_text(encoding="utf-8")
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2].rstrip("\n")) for m in found]


WITH_BLOCKS = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_a_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in (*RUN, "text", "toml"), f"{page.name}:{block.line}: {block.language!r}"


@pytest.fixture(scope="module")
def demonstration(miniature_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``make demo`` leaves it, of the tests' models: ``demo/cache`` and ``demo/results.parquet``."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "demo").mkdir()
    # Pages write summaries into the cache: into a copy, not into what other tests read.
    shutil.copytree(miniature_cache, folder / "demo" / "cache")
    run(
        "analyze metrics demo/cache -o demo/results.parquet --quiet\n"
        "analyze prompts demo/cache --only top1,ece,nll,auroc -o demo/results.parquet --quiet",
        folder,
    )
    return folder


def run(text: str, folder: Path) -> str:
    """Run shell lines in a folder, with this checkout's programs; an error fails the test."""
    programs = f"""set -eu
extract() {{ {sys.executable} -m extract "$@"; }}
analyze() {{ {sys.executable} -m analyze "$@"; }}
closerlook() {{ {sys.executable} -m closerlook "$@"; }}
python() {{ {sys.executable} "$@"; }}
"""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        ["bash", "-c", programs + text], cwd=folder, env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(page: Path, demonstration: Path) -> None:
    for block in blocks(page):
        if block.language not in RUN or block.needs:
            continue
        if block.language == "python":
            script = demonstration / "block.py"
            script.write_text(block.text, encoding="utf-8")
            run("python block.py", demonstration)
        else:
            run(block.text, demonstration)


def test_most_blocks_run_and_the_others_say_what_they_need() -> None:
    every = [block for page in PAGES for block in blocks(page) if block.language in RUN]
    assert sum(not block.needs for block in every) > len(every) / 2
    for block in every:
        if not block.needs and block.language == "bash":
            assert not re.search(r"/data/|s3://|gs://|https://|--engine|--devices|@closer-look|make ", block.text), (
                block
            )


def test_a_command_of_a_block_that_is_not_run_is_understood() -> None:
    spec = importlib.util.spec_from_file_location("test_readme", ROOT / "tests" / "test_extract" / "test_readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    checked = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language == "bash" and block.needs:
                for line in re.findall(r"^((?:extract|analyze|python -m cache_schema) .*)$", block.text, re.MULTILINE):
                    readme.test_a_command_of_the_readme_is_understood(line)
                    checked += 1
    assert checked > 10


@pytest.fixture(scope="module")
def site(demonstration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, with the gallery and one notebook drawn from the tests' cache."""
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    build = site_builder()
    folder = tmp_path_factory.mktemp("site")
    gallery, executed = folder / "gallery", folder / "executed"
    build.draw_gallery(demonstration / "demo" / "cache", demonstration / "demo" / "results.parquet", gallery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOSERLOOK_CACHE", "")
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        build.execute_notebooks(demonstration / "demo" / "cache", executed, "00_first_ten_minutes")
        patch.setenv("CLOSERLOOK_GALLERY", str(gallery))
        patch.setenv("CLOSERLOOK_NOTEBOOKS", str(executed))
        build.build(folder / "html")
    return folder / "html"


@pytest.mark.slow
def test_the_line_below_each_figure_draws_it(site: Path, demonstration: Path) -> None:
    import html

    from analyze.figures import FIGURES

    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "gallery.html").read_text(encoding="utf-8")))
    lines = re.findall(r"^(analyze figures .+)$", text, re.MULTILINE)
    assert [line.split("--only ")[1].split()[0] for line in lines] == list(FIGURES)
    drawn = {path.stem for path in (site / "figures").glob("*.png")}
    run("\n".join(line for name, line in zip(FIGURES, lines, strict=True) if name in drawn), demonstration)
    assert {path.stem for path in (demonstration / "figures").glob("*.png")} >= set(FIGURES) & drawn


@pytest.mark.slow
def test_the_gallery_shows_every_figure(site: Path) -> None:
    text = (site / "gallery.html").read_text(encoding="utf-8")
    from analyze.figures import FIGURES

    shown = set(re.findall(r'src="figures/([^"]+)\.png"', text))
    assert shown >= set(FIGURES) - {"corruptions"}  # the miniature has one severity of each corruption
    assert all((site / "figures" / f"{name}.png").exists() for name in shown)


@pytest.mark.slow
def test_the_first_ten_minutes_show_their_outputs(site: Path) -> None:
    text = (site / "notebooks" / "00_first_ten_minutes.html").read_text(encoding="utf-8")
    assert "Without outputs" not in text
    assert "Top-1" in text


@pytest.mark.slow
def test_the_registries_are_all_on_their_pages(site: Path) -> None:
    from analyze.detectors import names
    from analyze.metrics.registry import METRICS
    from extract.datasets.recipes import all_recipes

    for page, wanted in (("metrics", METRICS), ("detectors", names()), ("recipes", all_recipes())):
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        missing = [name for name in wanted if f"<code>{name.replace('{}', 'N')}</code>" not in text]
        assert not missing


@pytest.mark.slow
def test_every_public_name_is_on_the_page_of_python(site: Path) -> None:
    import closerlook

    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    modules = {"detectors", "metrics", "plugins"}
    for name in set(closerlook.__all__) - modules - {"__version__", "open_cache"}:
        assert f"closerlook.{name}" in text, name
    assert all(f"<code>closerlook.{name}</code>" in text for name in modules)
    assert 'id="cache_schema.open_cache"' in text


@pytest.mark.slow
def test_a_page_asks_no_other_server_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', text), page.name


@pytest.mark.slow
def test_the_search_works_from_a_folder(site: Path, browser: Any) -> None:
    browser.get((site / "index.html").as_uri())
    end, found = time.monotonic() + 60, []
    box = browser.find_element("css selector", "input.md-search__input")
    while not found and time.monotonic() < end:
        # What is typed before the page's script runs is lost.
        box.click()
        box.clear()
        box.send_keys("spiegelhalter")
        typed = time.monotonic()
        while not found and time.monotonic() < typed + 10:
            time.sleep(0.2)
            found = browser.execute_script(
                "return [...document.querySelectorAll('.md-search-result__link')].map(e => e.getAttribute('href'))"
            )
    assert any("metrics.html" in link for link in found)
    assert [entry for entry in browser.get_log("browser") if "search_index" in entry["message"]] == []


def test_messages_of_the_troubleshooting_page_exist() -> None:
    """Each message in the first column is printed by some module, word for word."""
    packages = ("analyze", "cache_schema", "closerlook_common", "extract")
    code = "".join(path.read_text(encoding="utf-8") for name in packages for path in (ROOT / name).rglob("*.py"))
    code = re.sub(r'"\s*\n\s*[rf]*"', "", code)  # strings that go on in the next line
    text = (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(messages) > 25
    for message in messages:
        for part in message.split(" ... "):
            assert part in code, message
