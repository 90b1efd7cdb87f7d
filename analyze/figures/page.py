"""A page of panels that shows itself in a notebook, whatever backend the reader's matplotlib has."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from analyze.figures.style import figure_style

NOTEBOOK_DPI = 150


class Page(Figure):
    """A matplotlib figure; ``page.savefig("ood.pdf")`` saves it."""

    def savefig(self, fname: Any, *, transparent: bool | None = None, **options: Any) -> None:
        """Save the page in the style that it was drawn in, whatever the reader's own settings are."""
        with figure_style():
            super().savefig(fname, transparent=transparent, **options)

    def _repr_png_(self) -> bytes:
        """Return the picture; pyplot, which shows figures otherwise, is never imported here."""
        out = BytesIO()
        self.savefig(out, format="png", dpi=NOTEBOOK_DPI, bbox_inches="tight", pad_inches=0.02)
        return out.getvalue()
