"""How sure a number is: intervals of proportions, means, areas and detection, paired differences, and the bootstrap.

The bootstrap over images is for what has no interval of its own.

Imports metrics, kernels and settings; what makes rows of the result table imports it.
"""

from analyze.intervals.bootstrap import BootstrapWeights, bootstrap, bootstrap_interval, quantiles
from analyze.intervals.paired import PairedDifference, paired_difference
from analyze.metrics.proportions import (
    Interval,
    clopper_pearson_interval,
    normal_reach,
    proportion_interval,
    wilson_interval,
)

__all__ = [
    "BootstrapWeights",
    "Interval",
    "PairedDifference",
    "bootstrap",
    "bootstrap_interval",
    "clopper_pearson_interval",
    "normal_reach",
    "paired_difference",
    "proportion_interval",
    "quantiles",
    "wilson_interval",
]
