"""What every fit has: a name, the settings that it reads, ``fit`` on rows of a store, and a form that gives columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from analyze.reading.views import ClassView
from cache_schema.format.records import DatasetCard

if TYPE_CHECKING:
    from analyze.settings import Settings

Columns = dict[str, NDArray[Any]]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Reason:
    """Why something was not fitted.

    Attributes
    ----------
    text
        One sentence without a full stop, as the result table shows it.
    passing
        Whether another run may succeed: a store could not be read.
    """

    text: str
    passing: bool = False


@dataclass(frozen=True)
class Target:
    """The dataset whose columns a fit is asked for: its card, the width of its logits, the classes that compete."""

    card: DatasetCard
    n_columns: int | None
    view: ClassView


@dataclass(frozen=True, eq=False)
class LogitBlock:
    """Some consecutive rows of a store in the pass over its logits.

    Attributes
    ----------
    view
        Which classes compete.
    logits, centers
        Centred logits (m, C) of all classes, and the centres (m,).
    places
        (m,) place of each label among the classes that compete, -1 without one.
    valid
        (m,) rows that count.
    scaled
        Temperature -> (statistic, m) kernel statistics of softmax(logits / temperature), for every temperature that
        a fit asks for.
    ranks
        Temperature -> (m,) rank of the label, where it differs from that at temperature 1.
    threads
        Threads over the rows.
    """

    view: ClassView
    logits: NDArray[Any]
    centers: NDArray[np.float32]
    places: NDArray[np.int32]
    valid: NDArray[np.bool_]
    scaled: Mapping[float, NDArray[np.float32]] = field(default_factory=dict)
    ranks: Mapping[float, NDArray[np.int32]] = field(default_factory=dict)
    threads: int = 1
    _shared: dict[object, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.valid)

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives; it is called once a key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


class Fitted(ABC):
    """What was learnt from rows of the in-distribution set.

    Attributes
    ----------
    name
        Of the fit.
    temperature
        Temperature whose statistics the pass over the logits computes for ``columns``; None for none.
    aggregate
        Name of the classwise calibration error of the fit's probabilities; empty where it gives none.
    """

    name: str
    temperature: float | None = None
    aggregate: ClassVar[str] = ""

    def why_not(self, target: Target) -> str:
        """Return why the fit says nothing of a dataset; empty where it does."""
        return ""

    @abstractmethod
    def columns(self, block: Any) -> Columns:
        """Return the per-image columns of a block: (m,) or (m, k) arrays by name, of the same types for every block."""

    def logits(self, block: LogitBlock) -> tuple[NDArray[Any], float]:
        """Return logits and a temperature whose softmax is the fit's probabilities (needed with ``aggregate``)."""
        raise NotImplementedError(f"{self.name} gives no probabilities")

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return what a summary of a dataset keeps of the fit, ready for JSON."""
        return {}


class Fit(ABC):
    """Something that is fitted on a part of an in-distribution set and applied to every set of the model.

    Attributes
    ----------
    name
        In the settings, in the columns ``calibrator`` or ``score``, and in reasons.
    needs
        ``logits``: ``fit`` takes a prediction store, and ``columns`` a ``LogitBlock``. ``confidences``: both take
        per-image statistics of the ID set, which summaries hold too (``confidence_maps``). ``detector``: ``fit`` takes
        a ``ModelInputs``, and ``columns`` a tile of rows (``detectors``).
    sections
        Sections of the settings that it reads; reading another one is an error. They are part of the key of every
        number that depends on the fit.
    version
        Raised whenever the same rows would give another fit or other columns.
    gives
        Names of its columns; a name that ends in ``_`` stands for all that begin with it.
    fact
        Name of the fact that a summary with these columns holds; empty where the columns alone say so.
    aggregates
        Classwise errors of a summary that depend on the fit.
    roles
        Of the datasets that it is applied to.
    calibrates
        Whether it is a calibrator, which ``[calibrators] methods`` can name.
    moves
        Whether it is a calibrator that can change predictions.
    absent
        Reason of a summary that was made without the fit.
    """

    name: str
    needs: Literal["logits", "confidences", "detector"] = "logits"
    sections: tuple[str, ...] = ("split", "calibrators")
    version: ClassVar[int] = 1
    gives: tuple[str, ...] = ()
    fact: ClassVar[str] = ""
    aggregates: ClassVar[tuple[str, ...]] = ()
    roles: ClassVar[tuple[str, ...]] = ("id", "shift", "ood")
    calibrates: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    absent: ClassVar[str] = "needs the big stores: this summary was made without it"

    def is_asked(self, settings: Settings) -> bool:
        """Return whether the settings ask for the fit."""
        return self.name in settings["calibrators"]["methods"]

    @abstractmethod
    def fit(self, source: Any, rows: Rows, settings: Settings, threads: int = 1) -> Fitted | Reason:
        """Fit to some rows of a source.

        Parameters
        ----------
        source
            A prediction store, or for ``needs = "confidences"`` a mapping of the columns ``confidence``, ``correct``
            and ``prediction``, (n,) each.
        rows
            (n,) rows to fit on.
        settings
            The sections that the fit declares.
        threads
            Threads over the rows; they change nothing but the time.

        Raises
        ------
        CloserlookError, OSError
            The caller turns them into a ``Reason``.
        """

    def options(self, settings: Settings, dataset: str) -> dict[str, Any]:
        """Return the options that name the variant of a number made with the fit: those that are not the defaults."""
        return settings.changed("split")

    def made_otherwise(self, facts: Mapping[str, Any], settings: Settings) -> str:
        """Return why columns of a summary with these facts are not what the settings ask for; empty where they are."""
        return ""
