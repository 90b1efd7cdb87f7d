"""Every number, table and figure of the study, recomputed from stores on a laptop; no model is loaded.

Numbers go one way through the folders; each imports only what is listed before it (a contract in ``pyproject.toml``):

    annotations, settings               what is known of the images besides labels, what was chosen
    kernels, metrics, intervals         arrays in, a number out, and how sure it is
    reading                             which stores of a cache count, which classes compete
    calibrators, detectors              fitted on arrays, applied to arrays
    predictions, suites, evaluate       logits -> per-image statistics -> metrics -> every model on every dataset
    ood, probes, curves, trends         what is asked of a cache, or of a whole table, beyond that
    tables, figures, report             what a reader looks at
    interactive, api, commands          the ways in: a notebook, a script, a command line

``results`` is what they hand each other: one table, one row a number.

``api`` has what a script calls as ``closerlook.evaluate`` and so on: ``evaluate``, ``ood``, ``probe`` and ``trends``.
Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyze import api as api
    from analyze.api import Trends as Trends
    from analyze.interactive import Results as Results
else:
    from closerlook_common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {"analyze.api": ("Trends",), "analyze.interactive": ("Results",)},
    )

__all__ = ["Results", "Trends", "api"]
