"""The site can be read and used by everyone: contrast, keyboard, reduced motion, phones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_looks import CONTRAST, MOVING, show
from site_builder import site_builder

PAGES = ("index", "getting-started", "how-to/troubleshooting", "reference/detectors", "glossary", "notebooks/03_ood")
"""A page of each kind: cards, code and tables, wide tables, lists, a notebook."""
Open = Callable[..., Any]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without figures and outputs."""
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    build = site_builder()
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOSERLOOK_GALLERY", str(folder / "none"))
        patch.setenv("CLOSERLOOK_NOTEBOOKS", str(folder / "none"))
        build.build(folder / "html")
    return folder / "html"


@pytest.fixture
def opened(browser: Any, pages: Path) -> Open:
    def visit(page: str, *, width: int = 1300, dark: bool = False, still: bool = False) -> Any:
        ready = f"document.body.dataset.mdColorScheme === '{'slate' if dark else 'default'}'"
        show(browser, (pages / f"{page}.html").as_uri(), ready, width=width, dark=dark, still=still)
        time.sleep(0.4)  # colours pass over into one another
        return browser

    return visit


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(opened: Open, dark: bool) -> None:
    for page in PAGES:
        found = opened(page, dark=dark).execute_script(CONTRAST)
        assert len(found) > 40, page
        assert [row for row in found if row[1] < row[2]] == [], page


def test_no_page_is_wider_than_a_phone(opened: Open) -> None:
    for page in PAGES:
        assert opened(page, width=390).execute_script("return document.documentElement.scrollWidth") <= 390, page


def test_the_keyboard_reaches_the_content_and_the_focus_is_outlined(opened: Open) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver, reached = opened("index"), set()
    for _ in range(8):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        name, outline = driver.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.className || e.name, s.outlineStyle + ' ' + s.outlineWidth]"
        )
        reached |= set(name.split())
        assert outline == "solid 2px", name
    assert {"md-skip", "md-search__input", "md-nav__link"} <= reached


def test_nothing_moves_where_reduced_motion_is_asked_for(opened: Open) -> None:
    assert opened("index").execute_script(MOVING) > 0
    assert opened("index", still=True).execute_script(MOVING) == 0
