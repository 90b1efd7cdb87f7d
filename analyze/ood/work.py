"""The detectors as work of the engine: one cell a model and detector."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from analyze.evaluate.cells import cell_key
from analyze.evaluate.engine import Cell, Computed
from analyze.fits.detectors import DetectorFit
from analyze.metrics.registry import version
from analyze.ood.effects import Effects, KeptEffects, variant_name
from analyze.ood.inputs import OodOptions, find_inputs, ood_sets, spectrum_sets
from analyze.ood.rows import score_model
from analyze.ood.scoring import SECTIONS, asked_options, models_of, stores_of
from analyze.results import ResultRow, card_cells
from analyze.suites.detection import METRICS

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


@dataclass(frozen=True)
class OodPlan:
    """The detectors on every chosen model; see ``engine.Plan``.

    Attributes
    ----------
    options
        What to do.
    kept
        Takes what each image adds to the numbers; None where the works are computed on other machines.
    """

    options: OodOptions
    kept: KeptEffects | None = field(default=None, compare=False)
    memory: ClassVar[int] = 2 << 30

    def works(self, cache: Cache, names: Collection[str] | None = None) -> list[OodWork]:
        """Return one work a model."""
        chosen = models_of(cache, self.options)
        return [OodWork(name, cache, self.options, self.kept) for name in chosen if names is None or name in names]


@dataclass
class OodWork:
    """The detectors on the stores of one model; see ``engine.Work``.

    Attributes
    ----------
    name
        The model.
    cache, options, kept
        What to do, and where to keep what each image adds to the numbers.
    problems
        See ``engine.Work``; a detector that cannot run gives rows with its reason.
    notes
        Images that a detector has no score of; filled by ``compute``.
    """

    name: str
    cache: Cache
    options: OodOptions
    kept: KeptEffects | None = None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return a cell for each detector; its key holds the stores, roles and sections of options that are read."""
        options, cache = self.options, self.cache
        inputs = find_inputs(cache, self.name, options)
        outside, shifted = ood_sets(cache, self.name, options), spectrum_sets(cache, self.name, options)
        others = [*shifted, *((options.sweep,) if options.sweep else ())]
        shared = {
            "command": "ood",
            "model": card_cells(inputs.store.model),
            "name": self.name,
            "id": options.id_dataset,
            "head": inputs.head.prompt_set if inputs.head is not None else None,
            "outside": list(outside.items()),
            "shifted": shifted,
            "stores": stores_of(cache, inputs, outside),
            "others": [cache.store(self.name, name).digest for name in others],
            "metrics": {metric: version(metric) for metric in METRICS},
        }
        return [
            Cell(
                cell_key(
                    **shared,
                    detector=fit.name,
                    version=fit.version,
                    sections=options.settings.only(*fit.sections, *SECTIONS).sections,
                    variant=asked_options(fit.name, options),
                    # Only why it cannot run says what a detector lacks: it may be there later.
                    reason=fit.why_not(inputs, options.settings.only(*fit.sections)),
                ),
                fit.name,
            )
            for fit in map(DetectorFit, options.detectors)
        ]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Score the sets with the missing detectors in one pass over each store."""
        wanted = replace(self.options, detectors=tuple(cell.of for cell in missing))
        rows: dict[str, list[ResultRow]] = {cell.of: [] for cell in missing}
        effects: Effects | None = None if self.kept is None else {}
        for row in score_model(self.cache, self.name, wanted, note=self.notes.append, effects=effects):
            rows[row.score].append(row)
        sets = ood_sets(self.cache, self.name, self.options)
        for cell in missing:
            if self.kept is not None and effects is not None:
                name = variant_name(self.options.id_dataset, cell.of, asked_options(cell.of, self.options))
                self.kept.add(name, self.name, cell.key, effects.get(cell.of, {}), sets)
            yield Computed(cell, rows[cell.of])
