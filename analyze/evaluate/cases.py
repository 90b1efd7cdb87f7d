"""From the stores of one model to cases: fits on the ID set, makes or loads the summaries, splits the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.evaluate.loaded_summaries import loaded
from analyze.evaluate.originals import fitted_originals
from analyze.fits.base import Fitted, Reason, Target
from analyze.fits.id_set import IdSet, attempt_fit, fit_id_set, id_set_of
from analyze.fits.registry import FITS
from analyze.intervals.resampling import Resampling
from analyze.predictions import SummaryOptions, summarize
from analyze.predictions.summaries import Summary
from analyze.reading.class_options import class_options, class_view
from analyze.reading.sources import Source
from analyze.reading.views import ClassView
from analyze.settings import Settings
from analyze.suites.base import Case, ModelCase, Wanted
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import CloserlookError, is_unreadable

KEPT_BYTES = 128 << 20
"""Logits of a model's ID sets together that are kept between fits and statistics (ImageNet's 50,000 rows: 95 MiB)."""


@dataclass
class ModelCases(ModelCase):
    """The cases of a model, its card, and what went wrong with single datasets.

    ``unreadable`` says that a reason is of a store that could not be read: it is no fact about the store's content.
    """

    model: ModelCard = field(default_factory=lambda: ModelCard(id="-"))
    digests: dict[str, str] = field(default_factory=dict)
    head: str = ""
    unreadable: bool = False


def build_cases(
    sources: Sequence[Source],
    settings: Settings,
    wanted: Wanted,
    *,
    threads: int = 1,
    resampling: Resampling | None = None,
) -> ModelCases:
    """Make the cases of one model.

    Parameters
    ----------
    sources
        Its stores.
    settings
        Options.
    wanted
        What is needed of the cases; nothing else is computed.
    threads
        Threads over the rows of a block.
    resampling
        Shared bootstrap weights, None for no bootstrap.
    """
    built = ModelCases(
        cases={},
        settings=settings,
        model=sources[0].store.model,
        datasets={s.dataset: s.store.dataset for s in sources},
        digests={s.dataset: s.digest for s in sources},
        head=sources[0].store.recorded("prompt_set"),
    )
    _Builder(built, sources, wanted, threads, resampling).build()
    return built


class _Builder:
    """Makes the cases of one model: fits on its ID sets, then the statistics of every set.

    Parameters
    ----------
    built
        The model; its cases are put here.
    sources, wanted, threads, resampling
        See ``build_cases``.
    """

    def __init__(
        self,
        built: ModelCases,
        sources: Sequence[Source],
        wanted: Wanted,
        threads: int,
        resampling: Resampling | None,
    ) -> None:
        self.built, self.settings = built, built.settings
        self.sources, self.wanted, self.threads, self.resampling = sources, wanted, threads, resampling
        self.inside = [s for s in sources if s.role == "id"]
        self.fits = [FITS[name] for name in wanted.fits]
        self.id_sets: dict[str, IdSet] = {}

    def build(self) -> None:
        """Fit, then make every case; what goes wrong with a dataset is kept as its problem."""
        stores = [s.store for s in self.inside if not s.is_summary]
        left = KEPT_BYTES if self.wanted.split else 0
        for store in stores:
            left -= store.keep_logits(left)
        try:
            if self.wanted.split:
                fits = [fit for fit in self.fits if fit.needs == "logits"]
                self.id_sets = {s.dataset: fit_id_set(s, self.settings, fits, self.threads) for s in self.inside}
            self.built.unreadable = any(found.passing for found in self.id_sets.values())
            for source in self.sources:
                try:
                    self.built.cases[source.dataset] = self._case(source)
                except (CloserlookError, OSError) as error:
                    self.built.problems[source.dataset] = str(error)
                    self.built.unreadable |= is_unreadable(error)
            self._add_maps()
            on_subsets = "subsets" in self.wanted.statistics and self.settings["accuracy"]["on_subsets"]
            if on_subsets or ("ood_subsets" in self.wanted.statistics and self.settings["ood"]["class_masks"]):
                self.built.subsets = _subsets(self.built, self.sources, self.inside, self.settings, self.threads)
        finally:
            for store in stores:
                store.keep_logits(0)

    def _case(self, source: Source) -> Case:
        on = id_set_of(source.store.dataset, sorted(self.id_sets))
        id_set = self.id_sets.get(on)
        held_out = self._held_out(source, id_set)
        unfitted = "no in-distribution set to fit on" if id_set is None else id_set.reason
        if len(self.id_sets) > 1 and id_set is None:
            sets = ", ".join(sorted(self.id_sets))
            unfitted = f"several in-distribution sets ({sets}), and none that this one is a shift of"
        if source.is_summary:
            summary = loaded(source.store, self.settings, on if self.id_sets else None, in_part=not held_out.all())
            if unfitted:
                names = [fit.name for fit in self.fits]
                summary = replace(summary, reasons={**summary.reasons, **dict.fromkeys(names, unfitted)})
        else:
            view = class_view(source.store.dataset, source.store.n_classes or 0, self.settings)
            if source.role == "ood":
                view = _ood_view(source, self.inside)
            summary = summarize(
                source.store,
                view=view,
                options=self._options(source, id_set, unfitted),
                held_out=None if held_out.all() else held_out,
                threads=self.threads,
            )
        return Case(
            summary,
            self.settings,
            held_out,
            calibrated_on=on,
            unfitted=unfitted if self.wanted.split else "",
            resampling=self.resampling,
        )

    def _held_out(self, source: Source, id_set: IdSet | None) -> NDArray[np.bool_]:
        """Return the rows of a source that no calibrator saw: neither they nor the images that they are made from."""
        if id_set is not None and not isinstance(id_set.rows, Reason):
            if id_set.dataset == source.dataset:
                return ~id_set.rows
            if source.role == "shift":
                fitted_on = next(s for s in self.inside if s.dataset == id_set.dataset)
                return ~fitted_originals(source, fitted_on, id_set.rows)
        return np.ones(len(source.store), np.bool_)

    def _options(self, source: Source, id_set: IdSet | None, unfitted: str) -> SummaryOptions:
        """Return what the statistics of a store must hold, and why fits are not among them."""
        settings, statistics, role = self.settings, self.wanted.statistics, source.role
        ood, card, width = settings["ood"], source.store.dataset, source.store.n_classes
        target = Target(card, width, class_view(card, width or 0, settings))
        fits: list[Fitted] = []
        reasons: dict[str, str] = {}
        for fit in self.fits:
            found = id_set.fits.get(fit.name) if id_set is not None else None
            if unfitted or isinstance(found, Reason):
                reasons[fit.name] = unfitted or (found.text if isinstance(found, Reason) else "")
            elif found is None:
                continue  # not asked for
            elif role not in fit.roles:
                reasons[fit.name] = f"{fit.name} is not applied to sets of role {role!r}"
            elif reason := found.why_not(target):
                reasons[fit.name] = reason
            else:
                fits.append(found)
        split = dict(settings["split"]) | ({} if id_set is None else {"dataset": id_set.dataset})
        return SummaryOptions(
            fits=tuple(fits),
            split=split,
            reasons=reasons,
            classes=class_options(card, settings),
            mcm_tau=ood["mcm_tau"],
            energy_temperature=ood["energy_temperature"],
            gen=(ood["gen_m"], ood["gen_gamma"]) if "gen" in statistics and role in ("id", "ood") else None,
            classwise_bins=settings["calibration"]["classwise_bins"] if "classwise" in statistics else 0,
            image_keys="image_keys" in statistics,
        )

    def _add_maps(self) -> None:
        """Fit what needs the confidences of the ID sets, and give it to every case that it applies to."""
        fits = [fit for fit in self.fits if fit.needs == "confidences" and fit.is_asked(self.settings)]
        made: dict[str, dict[str, Fitted | Reason]] = {}
        for name, case in self.built.cases.items() if fits else ():
            if case.is_fit_set and case.summary.has("confidence"):
                rows = case.summary.rows(case.summary.labelled & ~case.held_out)
                columns = {
                    "confidence": rows["confidence"],
                    "correct": rows["label_rank"] == 0,
                    "prediction": rows.prediction,
                }
                every = np.ones(len(rows), np.bool_)
                made[name] = {fit.name: attempt_fit(fit, columns, every, self.settings) for fit in fits}
        for name, case in self.built.cases.items():
            if found := made.get(case.calibrated_on):
                self.built.cases[name] = replace(case, maps=found)


def _ood_view(source: Source, inside: list[Source]) -> ClassView:
    """Return the classes that an OOD set's images are scored over: those of the ID set, never its own
    subset.
    """
    width = source.store.n_classes
    for other in inside:
        if not other.is_summary and other.store.n_classes == width:
            return ClassView.of(other.store.dataset, width)
    return ClassView(width)


def subset_view(card: DatasetCard, n_columns: int) -> ClassView | None:
    """Return the class subset or map of a dataset, None where it keeps all classes."""
    if card.class_mask is None and card.class_map is None:
        return None
    return ClassView.of(card, n_columns)


def subset_name(dataset: str) -> str:
    """Return the name of the view of an ID set on the classes of another dataset."""
    return f"classes:{dataset}"


def _subsets(
    built: ModelCases, sources: Sequence[Source], inside: list[Source], settings: Settings, threads: int
) -> dict[tuple[str, str], Summary | str]:
    """Summaries of the ID sets on the class subsets of the other sets: {(ID set, other set): summary or
    reason}.
    """
    found: dict[tuple[str, str], Summary | str] = {}
    for source in inside:
        made: dict[ClassView, Summary] = {}
        for other in sources:
            card = other.store.dataset
            if other.role == "id" or (card.class_mask is None and card.class_map is None):
                continue
            if other.role == "ood" and not settings["ood"]["class_masks"]:
                continue
            try:
                found[source.dataset, other.dataset] = _subset(source, other, settings, made, threads)
            except (CloserlookError, OSError) as error:
                found[source.dataset, other.dataset] = str(error)
                built.unreadable |= is_unreadable(error)
    return found


def _subset(
    source: Source, other: Source, settings: Settings, made: dict[ClassView, Summary], threads: int
) -> Summary | str:
    name = subset_name(other.dataset)
    if source.is_summary:
        if name not in source.variants:
            return f"needs the big store, or a summary of {source.dataset} on the classes of {other.dataset}"
        return loaded(source.variants[name], settings)
    view = subset_view(other.store.dataset, source.store.n_classes)
    assert view is not None
    if view not in made:
        made[view] = summarize_subset(source.store, view, settings, threads)
    return replace(made[view], variant=name)


def summarize_subset(store: Any, view: ClassView, settings: Settings, threads: int = 1) -> Summary:
    """Summarize an ID set on the classes of another: rows whose label is none of them are left out."""
    ood = settings["ood"]
    return summarize(
        store,
        view=view,
        labels=view.groups_of(store.labels) if view.groups is not None else None,
        leave_out_others=True,
        options=SummaryOptions(
            mcm_tau=ood["mcm_tau"],
            energy_temperature=ood["energy_temperature"],
            gen=None,
            classwise_bins=0,
        ),
        threads=threads,
    )
