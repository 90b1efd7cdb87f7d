"""Calibrators: fitted on a part of the in-distribution set, applied unchanged everywhere else.

Temperature, vector, matrix scaling and Dirichlet calibration move the logits; histogram binning, isotonic regression,
beta calibration, Platt scaling and Venn-Abers map the confidence, top-label binning by predicted class. At 1,000
classes matrix scaling and Dirichlet calibration have a million parameters: they are never fitted by default.

Imports kernels and reading; detectors, predictions and suites import it.
"""

from analyze.calibrators.by_name import fit_confidence_map
from analyze.calibrators.confidence_maps import (
    Beta,
    ConfidenceMap,
    HistogramBinning,
    Isotonic,
    fit_beta,
    fit_histogram,
    fit_isotonic,
)
from analyze.calibrators.matrix_scaling import MatrixFit, fit_dirichlet, fit_matrix_scaling
from analyze.calibrators.platt import Platt, fit_platt
from analyze.calibrators.split import fit_rows
from analyze.calibrators.temperature import TemperatureFit, fit_temperature, fit_temperature_store
from analyze.calibrators.top_label import TopLabelBinning, fit_top_label
from analyze.calibrators.vector_scaling import VectorFit, fit_vector_scaling, fit_vector_scaling_store
from analyze.calibrators.venn_abers import VennAbers, fit_venn_abers

__all__ = [
    "Beta",
    "ConfidenceMap",
    "HistogramBinning",
    "Isotonic",
    "MatrixFit",
    "Platt",
    "TemperatureFit",
    "TopLabelBinning",
    "VectorFit",
    "VennAbers",
    "fit_beta",
    "fit_confidence_map",
    "fit_dirichlet",
    "fit_histogram",
    "fit_isotonic",
    "fit_matrix_scaling",
    "fit_platt",
    "fit_rows",
    "fit_temperature",
    "fit_temperature_store",
    "fit_top_label",
    "fit_vector_scaling",
    "fit_vector_scaling_store",
    "fit_venn_abers",
]
