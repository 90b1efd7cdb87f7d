"""Post-hoc OOD detectors that need no model: features, logits, head and statistics of the training set are enough.

>>> import numpy as np
>>> from analyze.detectors import get
>>> get("msp").fit().score(logits=np.array([[0.0, 0.0]], dtype=np.float32))
array([0.5], dtype=float32)

Imports kernels and calibrators; predictions and ``analyze.ood``, which runs them over a cache, import it.
"""

from analyze.detectors.base import Detector, Fitted, Needs, Validation, score_all
from analyze.detectors.head import Head
from analyze.detectors.reference import Reference
from analyze.detectors.registry import DEFAULT_SETS, DETECTORS, defaults, get, names, requirements, sweep

__all__ = [
    "DEFAULT_SETS",
    "DETECTORS",
    "Detector",
    "Fitted",
    "Head",
    "Needs",
    "Reference",
    "Validation",
    "defaults",
    "get",
    "names",
    "requirements",
    "score_all",
    "sweep",
]
