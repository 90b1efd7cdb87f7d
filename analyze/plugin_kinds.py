"""Which plug-ins this stage uses, and where each kind is registered."""

from __future__ import annotations

from collections.abc import Mapping

REGISTRIES: Mapping[str, str] = {
    "metrics": "analyze.metrics.registry",
    "detectors": "analyze.detectors.registry",
    "calibrators": "analyze.fits.registry",
    "figures": "analyze.figures",
}
"""Kind of plug-in -> module that takes it; imported where a file offers some."""
