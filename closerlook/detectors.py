"""Post-hoc OOD detectors of features, logits, head and training set (those of ``analyze.detectors``)."""

from analyze.detectors import *  # noqa: F403
from analyze.detectors import __all__ as __all__
