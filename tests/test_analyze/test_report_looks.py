"""The report can be read and used by everyone: contrast, keyboard, reduced motion, paper, sizes of targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from page_looks import CONTRAST, MOVING, show

from analyze.report.pack import pack
from analyze.report.page import write_report

TABS = ("scatter", "leaderboard", "model", "factors", "provenance")
Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path, results: pl.DataFrame) -> Iterator[Open]:
    write_report(pack(results, title="A study", made_from="r.parquet"), tmp_path / "report.html")

    def visit(*, width: int = 1300, dark: bool = False, still: bool = False) -> Any:
        ready = "document.documentElement.dataset.ready === 'true'"
        return show(browser, (tmp_path / "report.html").as_uri(), ready, width=width, dark=dark, still=still)

    yield visit
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(opened: Open, dark: bool) -> None:
    driver = opened(dark=dark)
    for tab in TABS:
        driver.execute_script(f"document.getElementById('tab-{tab}').click()")
        found = driver.execute_script(CONTRAST)
        assert len(found) > 15, tab
        assert [row for row in found if row[1] < row[2]] == [], tab


def test_what_has_the_focus_is_outlined(opened: Open) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver, reached = opened(), set()
    for _ in range(16):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        name, outline = driver.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.id || e.className, s.outlineStyle + ' ' + s.outlineWidth]"
        )
        reached.add(name)
        assert outline == "solid 2px", name
    assert {"skip", "theme", "tab-scatter", "search", "x-measure", "y-scale"} <= reached


def test_nothing_moves_where_reduced_motion_is_asked_for(opened: Open) -> None:
    assert opened().execute_script(MOVING) > 0
    assert opened(still=True).execute_script(MOVING) == 0


def test_paper_is_light_and_the_screen_comes_back(opened: Open) -> None:
    driver = opened(dark=True)
    theme = "return document.documentElement.dataset.theme"
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script(theme) == "light"
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script(theme) == "dark"


def test_controls_on_a_phone_are_large_enough_to_touch(opened: Open) -> None:
    driver = opened(width=390)
    small = driver.execute_script(
        "return [...document.querySelectorAll('select, button, label, input[type=search]')]"
        ".filter(e => e.checkVisibility()).map(e => [e.id || e.textContent.trim(), e.getBoundingClientRect()])"
        ".filter(([, box]) => box.width < 24 || box.height < 24).map(([name]) => name)"
    )
    assert small == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
