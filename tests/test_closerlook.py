"""The package ``closerlook``: what it exports, that importing it is free, its command line."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import public_face
import pytest

import closerlook
from closerlook.cli import main

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "timm", "open_clip", "numpy", "polars", "scipy", "numba", "zarr", "matplotlib", "rich"}
CHANGED = (
    "the public face changed. CONTRIBUTING.md, 'What is public', says how a name is deprecated; if that is done,"
    " 'python tests/public_face.py' writes the list again"
)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def test_importing_loads_nothing_heavy_and_takes_no_time() -> None:
    code = (
        "import sys, time, json\nbegun = time.process_time()\n"
        "import closerlook, analyze, extract, cache_schema\n"
        "print(json.dumps([time.process_time() - begun, sorted(sys.modules)]))"
    )
    found = [json.loads(run_python(code)) for _ in range(3)]
    assert not HEAVY & set(found[0][1])
    assert min(seconds for seconds, _ in found) < 0.15


def test_the_laptop_half_works_without_torch() -> None:
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'timm', 'open_clip'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import closerlook\n"
        "for name in closerlook.__all__: getattr(closerlook, name)\n"
        "print(closerlook.metrics.auroc([2.0, 3.0], [0.0, 1.0]))"
    )
    assert run_python(code) == "1.0\n"


@pytest.mark.parametrize("package", public_face.PACKAGES)
def test_every_public_name_can_be_imported_and_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert len(module.__all__) == len(set(module.__all__))
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if name.startswith("__") or isinstance(value, int):
            continue
        assert inspect.getdoc(value), name
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for part, method in vars(value).items():
                if not part.startswith("_") and callable(getattr(value, part)):
                    assert inspect.getdoc(getattr(value, part)), f"{name}.{part} {method}"
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_that_name'"):
        module.nothing_of_that_name  # noqa: B018


def test_the_public_face_is_the_one_that_was_written_down() -> None:
    """A line of ``public_face.txt`` is a promise: this fails where a name goes, or a signature changes."""
    recorded = public_face.FILE.read_text(encoding="utf-8").splitlines()
    present = list(public_face.lines())
    gone = [line for line in recorded if line not in set(present)]
    assert not gone, f"{CHANGED}\n" + "\n".join(gone)
    new = [line for line in present if line not in set(recorded) and not line.startswith(public_face.OPEN)]
    assert not new, f"{CHANGED}\n" + "\n".join(new)


def test_functions_that_do_the_same_have_the_same_names_everywhere() -> None:
    from analyze import api
    from extract import api as extract_api

    assert closerlook.evaluate is api.evaluate
    assert closerlook.run is extract_api.run is importlib.import_module("extract").run
    for name in ("evaluate", "ood", "trends"):
        assert isinstance(importlib.import_module(f"analyze.{name}"), ModuleType)
        assert callable(getattr(closerlook, name)), "a folder of analyze never takes the place of a function"


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert f"\nversion: {closerlook.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert project["tool"]["hatch"]["version"]["path"] == "closerlook_common/distribution.py"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--version"], "closerlook {}"),
        (["extract", "--version"], "closerlook extract (closerlook {})"),
        (["analyze", "--version"], "closerlook analyze (closerlook {})"),
        (["cache", "--version"], "closerlook cache (closerlook {})"),
    ],
)
def test_every_program_says_its_version(words: list[str], printed: str, capsys) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == printed.format(closerlook.__version__)


def test_programs_are_sub_commands(tmp_path: Path, capsys) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("extract", "analyze", "cache", "completion"))
    assert main([]) == 2
    capsys.readouterr()
    assert main(["analyze", "metrics", str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err.startswith("closerlook analyze: ")
    assert main(["cache", "show", "--help"]) == 0
    assert "usage: closerlook cache show" in capsys.readouterr().out
    assert main(["analyse"]) == 2
    error = capsys.readouterr().err
    assert "did you mean analyze?" in error
    assert len(error.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, io, contextlib\nfrom closerlook.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert main(['--help']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not HEAVY & set(json.loads(run_python(code)))
