"""Puts data, style and scripts into one HTML file that opens from a disk and needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

from closerlook_common.redaction import printable
from closerlook_common.user_cache import replaced_whole

FOLDER = Path(__file__).parent
SCRIPTS = ("decode", "format", "stats", "store", "axes", "scatter", "leaderboard", "cards", "factors", "main")
"""Parts of the page's script, in the order they are put together."""


def render(packed: dict[str, Any]) -> str:
    """Return the page.

    The data are in a block that no browser runs; style and script are allowed by their hashes alone, so that a
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
        "TITLE": html.escape(printable(packed["title"])),
        "STYLE": style,
        "DATA": escaped_json(_visible(packed)),
        "SCRIPT": script,
    }
    pieces = template.split("@@")
    return "".join(page[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def escaped_json(value: Any) -> str:
    """Return JSON that cannot end the block it is in: no ``<``, ``>``, ``&`` or line separators are left."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _visible(value: Any) -> Any:
    """Return the data with every text `printable`: a name must not turn the page's text round or hide in it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _visible(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(held) for held in value]
    return value


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def write_report(packed: dict[str, Any], path: str | Path) -> int:
    """Write the page, all at once; returns its size in bytes."""
    path = Path(path)
    with replaced_whole(path) as part:
        part.write_text(render(packed), encoding="utf-8", newline="\n")
    return path.stat().st_size
