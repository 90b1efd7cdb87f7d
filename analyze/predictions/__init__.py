"""From logits to per-image statistics: one fused pass over a prediction store, and what is fitted on the ID set's fit
half beforehand (calibrators, conformal quantiles, typical softmaxes).

Imports kernels, intervals, reading, calibrators and detectors; suites compute their numbers from what it gives, and
never open a store themselves.
"""

from analyze.predictions.fused_pass import BLOCK_ROWS, SummaryOptions, summarize

__all__ = ["BLOCK_ROWS", "SummaryOptions", "summarize"]
