"""The notebooks as pages, with the outputs of their last execution where there is one."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]


def _executed() -> Path:
    return Path(os.environ.get("CLOSERLOOK_NOTEBOOKS", ROOT / "docs" / "executed"))


def notebooks() -> list[Path]:
    """Return the notebooks in reading order."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def _output(output: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Return an output as Markdown, and its picture by file name."""
    if output.output_type == "stream":
        return f"````text\n{output.text.rstrip()}\n````\n", {}
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Figure]({name}.png)\n", {f"{name}.png": base64.b64decode(data["image/png"])}
    if "text/html" in data:  # tables: styles of their own would fight with the site's
        html = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        return f'<div class="notebook-table">{html}</div>\n', {}
    return f"````text\n{''.join(data.get('text/plain', '')).rstrip()}\n````\n", {}


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a Markdown page, and its pictures by file name."""
    done = _executed() / path.name
    notebook = nbformat.read(done if done.exists() else path, as_version=4)
    parts, pictures = [], {}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source + "\n")
            continue
        parts.append(f"````python\n{cell.source}\n````\n")
        for index, output in enumerate(cell.get("outputs", [])):
            text, images = _output(output, f"{path.stem}-{place}-{index}")
            parts.append(text)
            pictures |= images
    if not done.exists():
        parts.insert(1, "*Without outputs in this build: `make docs` executes it on the demonstration.*\n")
    return "\n".join(parts), pictures
