"""The number that says when the code which runs models changed what comes out."""

FORWARD_VERSION = 1
"""Bumped by hand when decoding, forward pass or heads give other numbers; part of every store's identity."""
