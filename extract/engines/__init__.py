"""Who runs the units: this machine's devices, or a Ray cluster. Each is a function of a plan and options.

Imports passes and planning; only ``commands`` imports it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

from closerlook_common.errors import UserError, nearest
from extract.passes.events import Listener
from extract.planning.options import RunOptions
from extract.planning.plan import Unit

ENGINES = {"local": "extract.engines.local", "ray": "extract.engines.ray_cluster"}
"""Name on the command line -> module with ``run_units(units, options, listener, devices=..., address=...)``."""


class RunUnits(Protocol):
    """Runs units until all are done or have failed."""

    def __call__(
        self, units: Sequence[Unit], options: RunOptions, listener: Listener, *, devices: Sequence[str], address: str
    ) -> None:
        """Return when every unit has been worked on; failures are reported, not raised."""
        ...


def engine(name: str) -> RunUnits:
    """Return an engine by name."""
    if name not in ENGINES:
        raise UserError(f"no engine {name!r}{nearest(name, ENGINES)}; there are {', '.join(ENGINES)}")
    run_units: RunUnits = importlib.import_module(ENGINES[name]).run_units
    return run_units
