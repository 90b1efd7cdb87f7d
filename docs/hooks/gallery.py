"""The gallery: every figure, drawn from the miniature study, with the line that draws it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _folder() -> Path:
    return Path(os.environ.get("CLOSERLOOK_GALLERY", ROOT / "docs" / "gallery"))


def pictures() -> list[Path]:
    """Return the figures that have been drawn."""
    return sorted(_folder().glob("*.png"))


def page() -> str:
    """Return the gallery's page."""
    from analyze.figures import FIGURES

    drawn = {path.stem: path for path in pictures()}
    parts = [
        "# Gallery\n",
        "Every figure, drawn from the miniature study of `make demo`, whose numbers mean nothing beyond itself. Each "
        "saved figure has its numbers next to it as CSV.\n",
    ]
    for name, figure in FIGURES.items():
        parts += [f"## {name}\n", f"{figure.title[:1].upper()}{figure.title[1:]}.\n"]
        source = "demo/cache" if figure.needs == "curves" else "demo/results.parquet"
        parts.append(f"```bash\nanalyze figures {source} -o figures --only {name} --format png\n```\n")
        for stem in sorted(drawn):
            if stem == name or stem.startswith(f"{name}-"):
                parts.append(f"![{figure.title}](figures/{stem}.png)\n")
        if not any(stem == name or stem.startswith(f"{name}-") for stem in drawn):
            parts.append("*Not drawn in this build: `make docs` draws it from the demonstration.*\n")
    return "\n".join(parts)
