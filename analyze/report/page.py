"""Puts data, style and scripts into one HTML file that opens from a disk and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCRIPTS = ("decode", "format", "stats", "store", "axes", "scatter", "leaderboard", "cards", "factors", "main")
"""Parts of the page's script, in the order they are put together."""


def render(packed: dict[str, Any]) -> str:
    """Return the page.

    The data stand in a block that no browser runs; style and script are allowed by their hashes alone, so that a
    name that looks like markup can do nothing, and nothing is fetched.
    """
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    parts = [(FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    template = (FOLDER / "template.html").read_text(encoding="utf-8")
    page = {
        "POLICY": html.escape(policy, quote=True),
        "TITLE": html.escape(packed["title"]),
        "STYLE": style,
        "DATA": escaped_json(packed),
        "SCRIPT": script,
    }
    pieces = template.split("@@")
    return "".join(page[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def escaped_json(value: Any) -> str:
    """Return JSON that cannot end the block it stands in: no ``<``, ``>``, ``&`` or line separators are left."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def write_report(packed: dict[str, Any], path: str | Path) -> int:
    """Write the page, all at once; returns its size in bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.staged")
    staged.write_text(render(packed), encoding="utf-8", newline="\n")
    staged.replace(path)
    return path.stat().st_size
