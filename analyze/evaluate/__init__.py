"""A cache in, numbers out: every model on every dataset, on one machine or spread over a cluster, with what was
computed before kept; models compared on the same images, numbers by visual factor, image-text retrieval, summaries.

Imports suites and all below them; curves, OOD detectors over a cache, trends and commands import it.
"""

from analyze.evaluate.engine import Evaluation
from analyze.evaluate.whole_cache import choose, evaluate, output_path, result_row

__all__ = ["Evaluation", "choose", "evaluate", "output_path", "result_row"]
