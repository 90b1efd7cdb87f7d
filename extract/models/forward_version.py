"""The number that says when the code which runs models changed what comes out."""

from __future__ import annotations

FORWARD_VERSION = 1
"""Raised by hand when decoding, forward pass or heads give other numbers; part of every store's identity."""
