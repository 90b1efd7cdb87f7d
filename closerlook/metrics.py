"""The metrics: arrays in, a number or a frozen result out (those of ``analyze.metrics``)."""

from analyze.metrics import *  # noqa: F403
from analyze.metrics import __all__ as __all__
