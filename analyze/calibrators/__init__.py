"""Calibrators: fitted on a part of the in-distribution set, applied unchanged everywhere else.

Temperature and vector scaling move the logits, histogram binning, isotonic regression and beta calibration map the
confidence. There is no Dirichlet calibrator: at 1,000 classes it has a million parameters, and the implementations at
hand bring torch or jax, which this package does without.

Imports kernels and reading; detectors, predictions and suites import it.
"""

from analyze.calibrators.confidence_maps import (
    Beta,
    ConfidenceMap,
    HistogramBinning,
    Isotonic,
    fit_beta,
    fit_confidence_map,
    fit_histogram,
    fit_isotonic,
)
from analyze.calibrators.split import fit_rows
from analyze.calibrators.temperature import TemperatureFit, fit_temperature, fit_temperature_store
from analyze.calibrators.vector_scaling import VectorFit, fit_vector_scaling, fit_vector_scaling_store

__all__ = [
    "Beta",
    "ConfidenceMap",
    "HistogramBinning",
    "Isotonic",
    "TemperatureFit",
    "VectorFit",
    "fit_beta",
    "fit_confidence_map",
    "fit_histogram",
    "fit_isotonic",
    "fit_rows",
    "fit_temperature",
    "fit_temperature_store",
    "fit_vector_scaling",
    "fit_vector_scaling_store",
]
