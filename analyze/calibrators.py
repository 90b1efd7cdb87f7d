"""Calibrators: fitted on a part of the in-distribution set, applied unchanged everywhere else."""

from analyze.confidence_maps import (
    Beta,
    ConfidenceMap,
    HistogramBinning,
    Isotonic,
    fit_beta,
    fit_confidence_map,
    fit_histogram,
    fit_isotonic,
)
from analyze.split import fit_rows
from analyze.temperature import TemperatureFit, fit_temperature, fit_temperature_store

__all__ = [
    "Beta",
    "ConfidenceMap",
    "HistogramBinning",
    "Isotonic",
    "TemperatureFit",
    "fit_beta",
    "fit_confidence_map",
    "fit_histogram",
    "fit_isotonic",
    "fit_rows",
    "fit_temperature",
    "fit_temperature_store",
]
