"""The notebooks run from top to bottom on any cache, are saved without outputs, and define nothing."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

import cache_schema
from cache_schema.format.records import DatasetCard, ModelCard

pytestmark = [
    # Of the kernel's client and the event loop below it, which are not ours to fix.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(jupyter_client|nbclient|zmq|tornado|asyncio|traitlets).*"),
    pytest.mark.filterwarnings("ignore:.*without encryption.*"),
]

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-9]*.ipynb"))
FIRST = ROOT / "notebooks" / "00_first_ten_minutes.ipynb"
NAMES = [path.stem for path in NOTEBOOKS]
MAY_IMPORT = {"IPython", "analyze", "cache_schema", "numpy", "os", "pathlib", "polars", "tempfile"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PICTURES = {
    "01_look_at_a_store": 0, "02_calibration": 3, "03_ood": 3, "04_visual_factors": 3, "05_prompts": 1,
    "06_the_whole_study": 2,
}  # fmt: skip
"""How many figures each shows on a cache that has everything."""


@pytest.fixture(scope="session")
def bare_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two supervised models on one labelled set: no shift, no OOD set, no head, no features, no factors."""
    cache = tmp_path_factory.mktemp("bare")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5, dtype=np.int32), 40)
    for name in ("one", "two"):
        logits = rng.normal(size=(len(labels), 5)).astype(np.float32)
        logits[np.arange(len(labels)), labels] += 1.5
        cache_schema.write_store(
            cache,
            model=ModelCard(id=name, group="supervised-in1k", head_kind="linear"),
            dataset=DatasetCard(id="mine", role="id", class_names=tuple("abcde"), n_classes=5),
            logits=logits,
            labels=labels,
            image_ids=[f"{index}.png" for index in range(len(labels))],
        )
    return cache


def executed(path: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[nbformat.NotebookNode]:
    """Run a notebook on a cache; its outputs. A cell that fails raises."""
    monkeypatch.setenv("CLOSERLOOK_CACHE", str(cache))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # The kernel starts in the notebooks' folder and must find this checkout, installed or not.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(outputs: list[nbformat.NotebookNode]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_all_six_are_here() -> None:
    assert set(NAMES) == set(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_saved_without_outputs_and_defines_nothing(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 'CACHE = os.environ.get("CLOSERLOOK_CACHE", "../demo/cache")' in cells[0].source
    for cell in cells:
        assert not cell.outputs
        assert cell.execution_count is None
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            assert not isinstance(node, DEFINITIONS), ast.unparse(node)
            if isinstance(node, ast.ImportFrom):
                assert str(node.module).partition(".")[0] in MAY_IMPORT
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= MAY_IMPORT


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_shows_everything_on_a_whole_cache(
    path: Path, miniature_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = executed(path, miniature_cache, tmp_path, monkeypatch)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = text_of(outputs)
    for skipped in ("left out", "This cache", "nothing to", "failed:", "cannot run"):
        assert skipped not in text, text
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == PICTURES[path.stem]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_says_what_a_bare_cache_has_not(
    path: Path, bare_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(executed(path, bare_cache, tmp_path, monkeypatch))
    expected = {
        "01_look_at_a_store": "nothing to recompute",
        "02_calibration": "no shifted set",
        "03_ood": "no out-of-distribution set",
        "04_visual_factors": "no factor columns",
        "05_prompts": "no zero-shot head",
        "06_the_whole_study": "no shifted set",
    }
    assert expected[path.stem] in text
