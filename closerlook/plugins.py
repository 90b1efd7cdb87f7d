"""What plug-ins are made of: metrics, detectors, calibrators, figures, dataset recipes and model libraries.

A plug-in is a file that is named with ``--plugins FILE.py`` (in Python ``plugins=``) or a package with entry points
``closerlook.KIND``. A file defines tuples ``METRICS``, ``DETECTORS``, ``CALIBRATORS``, ``FIGURES``, ``DATASETS``,
``LIBRARIES``. ``examples/`` has one of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyze.detectors.base import Detector as Detector
    from analyze.detectors.base import Inputs as Inputs
    from analyze.detectors.base import Learnt as Learnt
    from analyze.detectors.base import Needs as Needs
    from analyze.detectors.rows import Rows as Rows
    from analyze.figures import Figure as Figure
    from analyze.figures.axes import scatter as scatter
    from analyze.figures.frames import scatter_panel as scatter_panel
    from analyze.fits.plugged import Calibrator as Calibrator
    from analyze.metrics.spec import Metric as Metric
    from analyze.results.quantities import Quantity as Quantity
    from analyze.results.quantities import id_dataset_of as id_dataset_of
    from closerlook_common.errors import UserError as UserError
    from extract.datasets.recipes.base import Recipe as Recipe
    from extract.datasets.recipes.base import class_folders as class_folders
    from extract.datasets.recipes.base import unlabelled as unlabelled
    from extract.libraries import Library as Library
    from extract.libraries.python.made import FunctionLibrary as FunctionLibrary
else:
    from closerlook_common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "analyze.detectors.base": ("Detector", "Inputs", "Learnt", "Needs"),
            "analyze.detectors.rows": ("Rows",),
            "analyze.figures": ("Figure",),
            "analyze.fits.plugged": ("Calibrator",),
            "analyze.figures.axes": ("scatter",),
            "analyze.figures.frames": ("scatter_panel",),
            "analyze.metrics.spec": ("Metric",),
            "analyze.results.quantities": ("Quantity", "id_dataset_of"),
            "closerlook_common.errors": ("UserError",),
            "extract.datasets.recipes.base": ("Recipe", "class_folders", "unlabelled"),
            "extract.libraries": ("Library",),
            "extract.libraries.python.made": ("FunctionLibrary",),
        },
    )

__all__ = [
    "Calibrator",
    "Detector",
    "Figure",
    "FunctionLibrary",
    "Inputs",
    "Learnt",
    "Library",
    "Metric",
    "Needs",
    "Quantity",
    "Recipe",
    "Rows",
    "UserError",
    "class_folders",
    "id_dataset_of",
    "scatter",
    "scatter_panel",
    "unlabelled",
]
