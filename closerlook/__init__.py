"""Run every CLIP and ImageNet model once; ask about its safety as often as you like.

>>> import closerlook
>>> closerlook.run(models="models.txt", datasets="datasets.toml", cache="cache")    # doctest: +SKIP
>>> results = closerlook.evaluate("cache")                                          # doctest: +SKIP
>>> results.best("ece", on="imagenet-r")                                            # doctest: +SKIP

``run`` and ``load_model`` need the extra ``extract``; the others work on a laptop without torch. Importing the package
loads none of it: names are loaded when they are first used. What is listed in ``__all__`` is public (CONTRIBUTING.md,
"What is public").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closerlook_common.distribution import VERSION as __version__

if TYPE_CHECKING:
    from analyze.api import Trends as Trends
    from analyze.api import evaluate as evaluate
    from analyze.api import ood as ood
    from analyze.api import probe as probe
    from analyze.api import trends as trends
    from analyze.interactive import Results as Results
    from cache_schema.reading.cache import Cache as Cache
    from cache_schema.reading.cache import open_cache as open_cache
    from closerlook import detectors as detectors
    from closerlook import metrics as metrics
    from closerlook import plugins as plugins
    from closerlook_common.errors import CloserlookError as CloserlookError
    from closerlook_common.errors import IncompleteWarning as IncompleteWarning
    from closerlook_common.errors import UserError as UserError
    from extract.api import DatasetSpec as DatasetSpec
    from extract.api import Extraction as Extraction
    from extract.api import ModelSpec as ModelSpec
    from extract.api import load_model as load_model
    from extract.api import run as run
else:
    from closerlook_common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "analyze.api": ("Trends", "evaluate", "ood", "probe", "trends"),
            "analyze.interactive": ("Results",),
            "cache_schema": ("Cache", "open_cache"),
            "closerlook_common.errors": ("CloserlookError", "IncompleteWarning", "UserError"),
            "closerlook.detectors": (),
            "closerlook.metrics": (),
            "closerlook.plugins": (),
            "extract.api": ("DatasetSpec", "Extraction", "ModelSpec", "load_model", "run"),
        },
    )

__all__ = [
    "Cache",
    "CloserlookError",
    "DatasetSpec",
    "Extraction",
    "IncompleteWarning",
    "ModelSpec",
    "Results",
    "Trends",
    "UserError",
    "__version__",
    "detectors",
    "evaluate",
    "load_model",
    "metrics",
    "ood",
    "open_cache",
    "plugins",
    "probe",
    "run",
    "trends",
]
