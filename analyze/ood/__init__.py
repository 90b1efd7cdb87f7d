"""Post-hoc OOD detectors over a cache: what was asked for, what the cache offers each detector, every model's scores as
rows of the result table. The detectors themselves, functions of arrays, are ``analyze.detectors``.

Imports detectors, suites, evaluate and all below them; only commands and notebooks import it.
"""

from analyze.ood.inputs import OodOptions
from analyze.ood.leaderboard import contests_on, leaderboard, leaders
from analyze.ood.resuming import outdated
from analyze.ood.rows import score_model
from analyze.ood.scoring import availability, models_of, score_store

__all__ = [
    "OodOptions",
    "availability",
    "contests_on",
    "leaderboard",
    "leaders",
    "models_of",
    "outdated",
    "score_model",
    "score_store",
]
