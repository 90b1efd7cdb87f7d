"""Fits on a part of the in-distribution set: temperature, vector scaling, confidence maps, conformal sets, KL-matching.

Each ``Fit`` names the settings that it reads, is fitted on rows of a store, and gives per-image columns of any set of
the model. Imports calibrators, detectors, reading and settings; predictions and suites use it.
"""

from analyze.fits.base import Fit, Fitted, LogitBlock, Reason, Target
from analyze.fits.registry import FITS, register

__all__ = ["FITS", "Fit", "Fitted", "LogitBlock", "Reason", "Target", "register"]
