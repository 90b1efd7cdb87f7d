"""What goes with what over models: tables of correlations and fits for any pair of result rows, overall and
by group.

Imports results, and evaluate for agreement on the line; figures, the report and commands import it.
"""

from analyze.trends.line_tests import same_line
from analyze.trends.pairs import Choices, pair_of
from analyze.trends.robustness import effective_robustness, factor_effective_robustness, relative_robustness
from analyze.trends.tables import (
    MIN_MODELS,
    NOT_TRENDS,
    correlation_matrix,
    correlation_table,
    default_pairs,
    fit_table,
    line_tests,
    natural_scale,
)

__all__ = [
    "MIN_MODELS",
    "NOT_TRENDS",
    "Choices",
    "correlation_matrix",
    "correlation_table",
    "default_pairs",
    "effective_robustness",
    "factor_effective_robustness",
    "fit_table",
    "line_tests",
    "natural_scale",
    "pair_of",
    "relative_robustness",
    "same_line",
]
