"""Plug-ins: files and packages that are broken or refused, and how what they define travels."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from plugin_commands import KINDS, ROOT, example, package, run, with_package, write_cache

from closerlook_common import plugins
from closerlook_common.errors import UserError
from closerlook_common.plugins import PluginFile, files, registry


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "cache")


# ---- what can go wrong

METRIC = "from closerlook.plugins import Metric\nMETRICS = (Metric({}),)\n"
DETECTOR = """from closerlook.plugins import Detector, Needs
class A(Detector):
    name = "msp"
    needs = Needs()
    def _fit(self, inputs): ...
DETECTORS = (A,)
"""
BROKEN = {
    "METRICS = (\n": "line 1: SyntaxError: '(' was never closed",
    "def f():\n    1 / 0\nf()\nMETRICS = ()": "line 2: ZeroDivisionError: division by zero",
    "METRICS = ()": "offers nothing: it defines none of LIBRARIES, DATASETS, METRICS",
    "METRICS = 3": "METRICS is a tuple of items, not int",
    "METRICS = ('x',)": "'x' among its metrics has no name",
    METRIC.format("'ece', 't', 'lower', columns=('correct',), function=len"): "the metric 'ece' exists already",
    METRIC.format("'mine', 't', 'lower', columns=('logit',), function=len"): "takes 'logit'",
    METRIC.format("'mine', 't', 'lower'"): "has no function",
    "class A:\n    name = 'a'\nDETECTORS = (A,)": "'a' is not a class derived from Detector",
    DETECTOR: "the detector 'msp' exists already",
    "class A:\n    name = 'a'\nFIGURES = (A(),)": "'a' is not a Figure",
    "from closerlook.plugins import Calibrator as C\nCALIBRATORS = (C('beta', len),)": "the calibrator 'beta' exists",
    "class A:\n    name = 'a'\nCALIBRATORS = (A(),)": "'a' is not a Calibrator",
    "from closerlook.plugins import Figure\nFIGURES = (Figure('ood', 't', len, len),)": "the figure 'ood' exists",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_one_line(text: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(text)
    printed = run("analyze", "figures", "--list", "--plugins", own, code=2).stderr
    assert len(printed.strip().splitlines()) == 1
    assert "mine.py" in printed
    assert BROKEN[text] in printed


CALIBRATOR = "from closerlook.plugins import Calibrator\nCALIBRATORS = (Calibrator('mine', lambda c, r: {}),)\n"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("1 / 0", "mine cannot be fitted (ZeroDivisionError: division by zero)"),
        ("3", "mine returns int, not a function of confidences"),
        ("lambda p: p * 2", "mine gives probabilities outside [0, 1]"),
        ("lambda p: p * float('nan')", "mine gives probabilities outside [0, 1]"),
        ("lambda p: p[:3]", "mine gives an array of shape (3,) for"),
        ("lambda p: p.no", "mine fails (AttributeError: "),
    ],
)
def test_a_broken_calibrator_is_a_reason(returned: str, reason: str, cache: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "mine.py", tmp_path / "r.parquet"
    own.write_text(CALIBRATOR.format(returned))
    words = ("--only", "ece", "--models", "m0", "--datasets", "val", "-o", out)
    run("analyze", "metrics", cache, "--plugins", own, *words)
    rows = pl.read_parquet(out).filter(pl.col("calibrator") != "")
    reasons = dict(rows.select("calibrator", "reason").rows())
    assert reason in reasons["mine"]
    assert reasons["temperature"] == "", "the others have their numbers"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from closerlook.plugins import Recipe, unlabelled\n"
         "DATASETS = (Recipe(name='sun', title='', role='ood', folders=(), expected=(), read=unlabelled()),)",
         "the dataset 'sun' is known already"),
        ("from closerlook.plugins import Recipe, unlabelled\n"
         "DATASETS = (Recipe(name='mine', title='', role='odd', folders=(), expected=(), read=unlabelled()),)",
         "has the role 'odd'"),
        ("from extract.libraries.timm import TimmLibrary\nLIBRARIES = (TimmLibrary(),)", "timm exists already"),
    ],
)  # fmt: skip
def test_names_of_ours_are_refused(text: str, message: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(text)
    printed = run("extract", "datasets", "--plugins", own, code=2).stderr
    assert message in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    printed = run("analyze", "settings", "--plugins", tmp_path / "gone.py", code=2).stderr
    assert "gone.py" in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_file_named_twice_is_loaded_once(cache: Path, tmp_path: Path) -> None:
    words = ("--plugins", example("metrics"), "--plugins", example("metrics"), "--only", KINDS["metrics"])
    assert "5 cells" in run("analyze", "metrics", cache, *words, "-o", tmp_path / "r.parquet").stderr
    other = tmp_path / "copy.py"
    other.write_text(example("metrics").read_text() + "\n")
    printed = run("analyze", "settings", "--plugins", example("metrics"), "--plugins", other, code=2).stderr
    assert "'confidence_when_wrong' among its metrics is there already, of own_metric.py" in printed


# ---- installed packages


def test_an_installed_package_offers_by_entry_points(cache: Path, tmp_path: Path) -> None:
    points = "[closerlook.metrics]\nmine = my_metric:METRICS\n[closerlook.detectors]\nmine = my_detector:TopTwo\n"
    modules = {"my_metric": example("metrics").read_text(), "my_detector": example("detectors").read_text()}
    environment = package(tmp_path / "site", points, **modules)
    done = with_package(
        environment, "analyze", "metrics", cache, "--only", KINDS["metrics"], "-o", tmp_path / "r.parquet"
    )
    assert done.returncode == 0, done.stderr
    assert "5 cells computed" in done.stderr
    assert "top-two" in with_package(environment, "analyze", "ood", "--list").stdout


def test_a_broken_package_costs_a_line_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    points = "[closerlook.metrics]\ngone = no_such_module:METRICS\nclash = my_clash:METRICS\n"
    clash = METRIC.format("'ece', 't', 'lower', columns=('correct',), function=len")
    environment = package(tmp_path / "site", points, my_clash=clash)
    done = with_package(environment, "analyze", "metrics", cache, "--only", "top1", "-o", tmp_path / "r.parquet")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("plug-in left out: ")]
    assert len(lines) == 2
    assert any("package mine 1.2, entry point gone of closerlook.metrics" in line for line in lines)
    assert any("the metric 'ece' exists already" in line for line in lines)


def test_the_digest_of_a_package_changes_with_its_version_and_its_file(tmp_path: Path, monkeypatch) -> None:
    class Dist:
        name, version = "mine", "1.2"

    monkeypatch.setattr(EntryPoint, "dist", Dist, raising=False)
    point = EntryPoint("mine", "my_module:ITEM", "closerlook.metrics")
    first = registry._package_digest(point, object())
    monkeypatch.setattr(Dist, "version", "1.3")
    assert registry._package_digest(point, object()) != first


# ---- the mechanism


def test_objects_of_a_file_travel_to_processes_and_a_changed_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "class Thing:\n    def __init__(self, x): self.x = x\n    name = 'thing'\nCALIBRATORS = (Thing(1),)\n"
    )
    monkeypatch.setattr(files, "_OFFERED", {})
    monkeypatch.setattr(registry, "_LOADED", {kind: [] for kind in plugins.KINDS})
    monkeypatch.setattr(registry, "_SINKS", {})  # other tests of this process have registries attached
    monkeypatch.setenv(files.INHERITED, "")
    plugins.load_files([own], {})
    (file,) = plugins.loaded_files()
    thing = registry._LOADED["calibrators"][0].item
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(getattr_x, (type(thing)(7),)) == 7
    owner, paths = json.loads(os.environ[files.INHERITED])
    assert owner == os.getpid()
    assert paths == {str(own): file.digest}
    pickled = pickle.dumps((file, thing))
    code = f"import pickle, sys; print(pickle.loads({pickled!r})[1].x)"
    bare = {**os.environ, "PYTHONPATH": str(ROOT), files.INHERITED: ""}
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=bare).stdout
        == "1\n"
    )
    own.write_text("changed = True\n")
    monkeypatch.setattr(files, "_FILES", {})
    monkeypatch.setenv(files.INHERITED, json.dumps([os.getppid(), paths]))
    with pytest.raises(UserError, match="has changed since this run began"):
        files._remember_inherited()


def getattr_x(thing: Any) -> int:
    return int(thing.x)


def test_a_command_does_not_inherit_plug_ins(cache: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        files.INHERITED: json.dumps(
            [os.getpid(), {str(example("metrics")): PluginFile("", example("metrics").read_text()).digest}]
        ),
    }
    words = ("analyze", "metrics", cache, "--only", KINDS["metrics"], "-o", tmp_path / "r.parquet")
    done = with_package(environment, *words)
    assert done.returncode == 2
    assert "no metric or suite" in done.stderr


def test_calls_take_plug_ins(cache: Path) -> None:
    code = (
        "import closerlook\n"
        f"found = closerlook.evaluate({str(cache)!r}, only={KINDS['metrics']!r}, plugins={str(example('metrics'))!r})\n"
        f"scored = closerlook.ood({str(cache)!r}, detectors='top-two', plugins=[{str(example('detectors'))!r}])\n"
        "print(len(found), found.metrics, sorted(set(scored.frame['score'])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout == "5 ['confidence_when_wrong'] ['top-two']\n"
