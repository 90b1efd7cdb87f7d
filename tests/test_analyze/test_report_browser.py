"""The report in a headless browser: what it shows is what the table holds, and hostile names are text."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.special import ndtri

from analyze.curves import CURVE_SCHEMA
from analyze.report.pack import pack
from analyze.report.page import write_report
from analyze.results import ResultRow, to_frame
from analyze.results.quantities import joined, values
from analyze.trends.fits import fit_line
from closerlook_common.redaction import printable


def some_curves(results: pl.DataFrame) -> pl.DataFrame:
    rows = [
        {
            "curve": "reliability",
            "model": model,
            "dataset": "imagenet-val",
            "series": series,
            "x_low": b / 15,
            "x_high": (b + 1) / 15,
            "x": (b + 0.5) / 15,
            "y": (b + 0.4) / 15,
            "y_low": b / 15,
            "y_high": (b + 1) / 15,
            "weight": 1 / 15,
        }
        for model in results["model"].unique()
        for series in ("before", "after temperature scaling")
        for b in range(15)
    ]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA)


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    def visit(table: pl.DataFrame, *, width: int = 1300, dark: bool = False, curves: pl.DataFrame | None = None) -> Any:
        write_report(pack(table, title="A study", made_from="r.parquet", curves=curves), tmp_path / "report.html")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )
        browser.get("about:blank")
        browser.get((tmp_path / "report.html").as_uri())
        end = time.monotonic() + 20
        while browser.execute_script("return document.documentElement.dataset.ready") != "true":
            assert time.monotonic() < end, browser.get_log("browser")
            time.sleep(0.05)
        return browser

    yield visit
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None


def choose(driver: Any, element: str, value: str) -> None:
    """Pick an option as a person does: the select changes and says so."""
    chosen = driver.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        " s.dispatchEvent(new Event('change')); return s.value",
        element,
        value,
    )
    assert chosen == value


def texts(driver: Any, selector: str) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def places(driver: Any) -> dict[str, str]:
    return dict(
        driver.execute_script(
            "return [...document.querySelectorAll('#plot .point')]"
            ".map(g => [g.dataset.model, g.querySelector('path').getAttribute('transform')])"
        )
    )


def statistics(driver: Any) -> dict[str, float]:
    """Return the statistics beside the plot at full precision, having checked that they are shown rounded."""
    found = driver.execute_script(
        "return [...document.querySelectorAll('#statistics dd')]"
        ".map(e => [e.dataset.statistic, e.dataset.value, e.textContent])"
    )
    for _, value, text in found:
        assert float(text.replace("−", "-")) == pytest.approx(float(value), abs=0.0051)
    return {name: float(value) for name, value, _ in found}


def test_every_model_is_a_dot_and_another_metric_moves_them(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results)
    first = places(driver)
    assert len(first) == 36
    choose(driver, "y-measure", "ece|")
    moved = places(driver)
    assert len(moved) == 36
    assert moved != first
    choose(driver, "y-dataset", "imagenet-r")
    assert places(driver) != moved
    names = joined(results, ["top1@imagenet-val", "ece@imagenet-r"])
    low = names.sort("0")["model"][0]
    leftmost = min(places(driver).items(), key=lambda item: float(item[1][10:].split(",")[0]))[0]
    assert sorted(results["model"].unique())[int(leftmost)] == low


@pytest.mark.parametrize("scale", ["linear", "probit", "logit"])
def test_statistics_are_scipys(opened: Open, results: pl.DataFrame, scale: str) -> None:
    # outliers, so that the robust line differs from least squares, and ties, so that tau-b differs from tau-a
    models = results["model"].unique().sort()
    shifted = pl.col("dataset") == "imagenet-a", pl.col("metric") == "top1"
    results = results.with_columns(
        pl.when(*shifted, pl.col("model").is_in(models[:3].implode()))
        .then(0.04)
        .when(*shifted, pl.col("model").is_in(models[10:14].implode()))
        .then(0.5)
        .otherwise("value")
        .alias("value")
    )
    driver = opened(results)
    choose(driver, "y-measure", "top1|")
    choose(driver, "y-dataset", "imagenet-a")
    for axis in "xy":
        choose(driver, f"{axis}-scale", scale)
    frame = joined(results, ["top1@imagenet-val", "top1@imagenet-a"])
    there = {"linear": lambda v: v, "probit": ndtri, "logit": lambda v: np.log(v / (1 - v))}[scale]
    x, y = (there(frame[c].to_numpy()) for c in "01")
    shown = statistics(driver)
    assert shown["Models"] == len(frame)
    assert shown["Pearson r"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=2e-5)
    assert shown["Spearman ρ"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=2e-5)
    assert shown["Kendall τ"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=2e-5)
    line = fit_line(frame["0"], frame["1"], x_scale=scale, y_scale=scale, errors=False)
    assert shown["Slope (Huber)"] == pytest.approx(line.slope, abs=2e-4)


def test_filters_and_groups_reach_every_part(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results)
    driver.execute_script("document.querySelector('.chip[data-group=self-supervised]').click()")
    assert len(places(driver)) == 30
    assert statistics(driver)["Models"] == 30
    driver.execute_script(
        "const s = document.getElementById('search'); s.value = 'laion'; s.dispatchEvent(new Event('input'))"
    )
    wanted = [m for m in results["model"].unique() if "laion" in m and not m.startswith("self-supervised")]
    assert len(places(driver)) == len(wanted)
    driver.execute_script("document.getElementById('tab-leaderboard').click()")
    assert sorted(texts(driver, "#board tbody .name span:last-child")) == sorted(wanted)


def test_sorting_sorts(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results)
    driver.execute_script("document.getElementById('tab-leaderboard').click()")
    by_value = dict(values(results, "ece@imagenet-val").select("model", "value").rows())
    column = next(i for i, t in enumerate(texts(driver, "#board thead th")) if t.startswith("ECE"))
    press = f"document.querySelectorAll('#board thead button')[{column}].click()"
    for ascending in (True, False):
        driver.execute_script(press)
        names = texts(driver, "#board tbody .name span:last-child")
        assert [by_value[n] for n in names] == sorted(by_value.values(), reverse=not ascending)
        state = driver.execute_script(
            f"return document.querySelectorAll('#board thead th')[{column}].getAttribute('aria-sort')"
        )
        assert state == ("ascending" if ascending else "descending")
    best = texts(driver, f"#board tbody td:nth-child({column + 1}).best")
    assert best == [f"{100 * min(by_value.values()):.1f} %"]


def test_a_drag_selects_and_escape_lets_go(opened: Open, results: pl.DataFrame) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    driver = opened(results)
    plot = driver.find_element(By.CSS_SELECTOR, "#plot svg")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    box = plot.rect
    ActionChains(driver).move_to_element_with_offset(
        plot, -int(box["width"] / 2) + 70, -int(box["height"] / 2) + 20
    ).click_and_hold().move_by_offset(int(box["width"] * 0.6), int(box["height"] * 0.85)).release().perform()
    picked = statistics(driver)["Models"]
    faded = driver.execute_script("return document.querySelectorAll('#plot .point.faded').length")
    assert 0 < picked < 36
    assert faded == 36 - picked
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert statistics(driver)["Models"] == 36


def test_the_mouse_tells_name_numbers_and_interval(opened: Open, results: pl.DataFrame) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    driver = opened(results)
    dot = driver.find_elements(By.CSS_SELECTOR, "#plot .point path")[-1]
    ActionChains(driver).move_to_element(dot).perform()
    text = driver.find_element(By.ID, "tooltip").text
    best = values(results, "top1@imagenet-val").sort("value").row(-1, named=True)
    assert best["model"] in text
    assert f"{100 * best['value']:.1f} %" in text
    assert f"({100 * best['low']:.1f} – {100 * best['high']:.1f} %)" in text


def test_the_keyboard_walks_tabs_and_dots(opened: Open, results: pl.DataFrame) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    driver = opened(results)
    driver.find_element(By.CSS_SELECTOR, "#plot svg").send_keys(Keys.ARROW_RIGHT)
    worst = values(results, "top1@imagenet-val").sort("value")["model"][0]
    assert worst in driver.find_element(By.ID, "tooltip").text
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert texts(driver, "#card h2") == [worst]
    driver.find_element(By.ID, "tab-model").send_keys(Keys.ARROW_RIGHT)
    assert driver.execute_script("return document.activeElement.id") == "tab-factors"
    assert driver.find_element(By.ID, "factors").is_displayed()
    assert not driver.find_element(By.ID, "model").is_displayed()


def test_cards_factors_and_provenance_hold_the_table(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results.with_columns(store=pl.lit("0123456789abcdef")), curves=some_curves(results))
    driver.execute_script("document.getElementById('tab-model').click()")
    model = texts(driver, "#card h2")[0]
    bars = texts(driver, "#card .bar-row")
    factors = results.filter(pl.col("model") == model, pl.col("metric") == "factor_accuracy")
    for factor, value in factors.select("factor", "value").rows():
        assert f"{factor.replace('_', ' ')}{100 * value:.1f} %" in bars
    assert len(driver.execute_script("return document.querySelectorAll('#card .bin')")) == 15
    driver.execute_script("document.getElementById('tab-factors').click()")
    assert len(texts(driver, "#heat tbody tr")) == 36
    assert len(texts(driver, "#heat tbody td.cell")) == 360
    driver.execute_script("document.getElementById('tab-provenance').click()")
    cells = texts(driver, "#sources tbody tr:first-child td")
    assert cells[-1] == "0123456789ab"
    assert cells[2] == "50000"
    assert "metric version 1" in driver.execute_script("return document.getElementById('source-about').textContent")


def test_a_card_without_single_images_says_so(opened: Open, results: pl.DataFrame) -> None:
    first, other = sorted(results["model"].unique())[:2]
    driver = opened(results, curves=some_curves(results).filter(pl.col("model") == other))
    driver.execute_script("document.getElementById('tab-model').click()")
    assert texts(driver, "#card h2") == [first]
    assert "No single images of this model" in "".join(texts(driver, "#card p"))
    choose(driver, "model-pick", "1")
    assert texts(driver, "#card h2") == [other]
    assert len(texts(driver, "#card .bin")) == 15


def test_a_link_brings_the_same_axes_back(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results)
    choose(driver, "y-measure", "ece|temperature")
    choose(driver, "y-dataset", "imagenet-a")
    address, before = driver.current_url, places(driver)
    driver.get("about:blank")
    driver.get(address)
    time.sleep(0.5)
    assert places(driver) == before


def test_hostile_names_are_text(opened: Open, hostile_table: pl.DataFrame, hostile_names: list[str]) -> None:
    driver = opened(hostile_table)
    for tab, selector in (
        ("scatter", None),
        ("leaderboard", "#board .name span:last-child"),
        ("model", "#card h2"),
        ("factors", "#heat .name span:last-child"),
        ("provenance", "#sources .name span:last-child"),
    ):
        driver.execute_script(f"document.getElementById('tab-{tab}').click()")
        if selector:
            assert set(texts(driver, selector)) <= set(map(printable, hostile_names))
            assert texts(driver, selector)
    driver.execute_script("document.getElementById('tab-scatter').click()")
    assert len(places(driver)) == len(hostile_names)
    for element in ("img", "b", "#card script", "#board script"):
        assert driver.execute_script("return document.querySelectorAll(arguments[0]).length", element) == 0


def few_models(n: int, *, sets: dict[str, str], detectors: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return numbers of somebody's own models: accuracy, ECE and unreadable images, and AUROC of detectors."""
    rows = []
    for i in range(n):
        card = {"model": f"my-model-{i}", "value": 0.5 + 0.1 * i}
        for dataset, role in sets.items():
            place: dict[str, Any] = {**card, "dataset": dataset, "role": role}
            if role == "ood":
                place["id_dataset"] = "val"
                for name, options in itertools.product(detectors, ("", '{"fit":"bank:t","full_spectrum":["moved"]}')):
                    rows.append(ResultRow(**place, metric="auroc", score=name, options=options, direction="higher"))
                continue
            rows.append(ResultRow(**place, metric="invalid_images", direction="lower"))
            rows.append(ResultRow(**place, metric="top1", direction="higher"))
            if role == "id":
                rows.append(ResultRow(**place, metric="ece", direction="lower"))
    return to_frame(rows)


def tab_and_axes(driver: Any) -> tuple[str, list[str]]:
    """Return the tab in view, and what the axes of the plot are."""
    (tab,) = driver.execute_script(
        "return [...document.querySelectorAll('main section')].filter(e => !e.hidden).map(e => e.id)"
    )
    return tab, texts(driver, "#plot .axis-title") if tab == "scatter" else []


def test_a_card_of_a_model_of_which_nothing_is_known_has_no_empty_part(opened: Open) -> None:
    row = {"model": "my-model-0", "dataset": "val", "role": "id", "direction": "none"}
    p_values = [ResultRow(**row, metric="ece_p", value=0.0), ResultRow(**row, metric="ks_p", value=2e-9)]
    driver = opened(pl.concat([few_models(1, sets={"val": "id"}), to_frame(p_values)]))
    headings = driver.execute_script(
        "return [...document.querySelectorAll('#card h3')].map(e => [e.textContent, e.nextElementSibling?.textContent])"
    )
    assert all(below for _, below in headings), headings
    shown = dict(zip(texts(driver, "#card .numbers dt"), texts(driver, "#card .numbers dd"), strict=True))
    assert shown["p of ECE under calibration"] == "< 1e-16"
    assert shown["p of the KS test of calibration"] == "2.00e-9"


@pytest.mark.parametrize(
    ("n", "sets", "tab", "axes"),
    [
        (3, {"val": "id"}, "scatter", ["Top-1 accuracy, Val (%)", "ECE, Val (%)"]),
        (3, {"val": "id", "moved": "shift"}, "scatter", ["Top-1 accuracy, Val (%)", "Top-1 accuracy, Moved (%)"]),
        (1, {"val": "id", "moved": "shift"}, "model", []),
        (2, {"far": "ood"}, "leaderboard", []),
    ],
)
def test_it_opens_on_what_is_worth_seeing(
    opened: Open, n: int, sets: dict[str, str], tab: str, axes: list[str]
) -> None:
    driver = opened(few_models(n, sets=sets, detectors=("msp",)))
    assert tab_and_axes(driver) == (tab, axes)
    (summary,) = texts(driver, "#summary")
    assert summary.startswith("1 model ·" if n == 1 else f"{n} models ·")
    assert ("1 dataset ·" if len(sets) == 1 else f"{len(sets)} datasets ·") in summary
    if tab == "scatter":
        assert sorted(texts(driver, "#plot .name-of-dot")) == [f"my-model-{i}" for i in range(n)]


def test_many_models_bear_no_names(opened: Open, results: pl.DataFrame) -> None:
    assert texts(opened(results), "#plot .name-of-dot") == []


def test_one_model_on_its_axes_spans_more_than_rounding(opened: Open) -> None:
    driver = opened(few_models(1, sets={"val": "id"}))
    driver.execute_script("document.getElementById('tab-scatter').click()")
    ticks = [float(text) for text in texts(driver, "#plot text[text-anchor=end]")]
    assert max(ticks) - min(ticks) > 2


def test_every_detector_is_listed_in_words(opened: Open) -> None:
    names = ("msp", "vim", "knn", "react")
    driver = opened(few_models(2, sets={"val": "id", "far": "ood", "near": "ood"}, detectors=names))
    driver.execute_script("document.getElementById('tab-leaderboard').click()")
    choose(driver, "columns", "detectors:auroc|far")
    heads = [head.split("\u00a0")[0] for head in texts(driver, "#board thead th")]
    assert heads == ["Model", "MSP", "ViM", "kNN", "ReAct"]
    driver.execute_script("document.getElementById('tab-model').click()")
    assert texts(driver, "#detection tbody th") == ["MSP", "ViM", "kNN", "ReAct"]
    assert texts(driver, "#detection thead th") == ["Detector", "AUROC, Far", "AUROC, Near"]
    labels = texts(driver, "option, th")
    assert "AUROC (ViM, fit=bank:t, full spectrum)" in labels
    assert not [label for label in labels if "{" in label]


def test_dark_and_light_and_a_phone(opened: Open, results: pl.DataFrame) -> None:
    driver = opened(results, dark=True)
    colour = "return getComputedStyle(document.body).backgroundColor"
    dark = driver.execute_script(colour)
    driver.execute_script("document.getElementById('theme').click()")
    light = driver.execute_script(colour)
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)[:3]))
    driver = opened(results, width=390)
    for tab in ("scatter", "leaderboard", "model", "factors", "provenance"):
        driver.execute_script(f"document.getElementById('tab-{tab}').click()")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390, tab
    assert len(places(driver)) == 36
