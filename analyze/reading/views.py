"""Class views: which classes enter the softmax (all, a subset, many-to-one super-classes), applied before
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics, image_statistics
from cache_schema.format.records import DatasetCard
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class ClassView:
    """A way from the columns of the stored logits to the classes that compete.

    Attributes
    ----------
    n_columns
        C, columns of the stored logits.
    mask
        Columns that are kept, None for all. Labels and predictions stay indices of columns.
    groups
        Columns of each super-class, None where there are none; labels and predictions are indices of groups.
    rule
        How members make a super-class. ``max``: its logit is the largest of its members'. ``mean``: its
        probability
        is proportional to the mean of its members'. ``restrict``: the softmax runs over the members of all
        groups;
        the prediction is the group of the best member and its confidence that member's probability, while
        the label's
        probability, the entropy and the sum of squares are those of the groups' summed probabilities.
    """

    n_columns: int
    mask: tuple[int, ...] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    rule: str = "max"

    def __post_init__(self) -> None:
        if self.groups is not None and self.mask is not None:
            raise UserError("a class view has a mask or groups, not both")
        members = self.columns
        if members.size == 0 or (self.groups is not None and min(map(len, self.groups)) == 0):
            raise UserError("a class view needs at least one class in every group")
        wrong = members[(members < 0) | (members >= self.n_columns)]
        if wrong.size:
            raise UserError(
                f"class {wrong[0]} of the class mask or map is not among the {self.n_columns} columns of the logits"
            )
        if np.unique(members).size != members.size:
            raise UserError("a class occurs twice in the class mask or map")

    @classmethod
    def of(cls, card: DatasetCard, n_columns: int) -> ClassView:
        """Return the view that a dataset's card asks for."""
        if card.class_map is not None:
            return cls(n_columns, groups=card.class_map, rule=card.class_map_rule)
        return cls(n_columns, mask=card.class_mask)

    @property
    def columns(self) -> NDArray[np.int64]:
        """Return the kept columns, in the order of the reduced logits (groups: members end to end)."""
        if self.groups is not None:
            return np.asarray([c for group in self.groups for c in group], np.int64)
        return np.arange(self.n_columns) if self.mask is None else np.asarray(self.mask, np.int64)

    @property
    def n_classes(self) -> int:
        """Return the number of classes that compete."""
        return len(self.groups) if self.groups is not None else self.columns.size

    def places(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return the place of each label among the competing classes, -1 where it is none of them."""
        labels = np.asarray(labels)
        if self.groups is not None or self.mask is None:
            limit = self.n_classes
            if labels.size and labels.max() >= limit:
                raise UserError(
                    f"row {int(labels.argmax())}: label {labels.max()} is not one of the {limit}"
                    f" {'super-classes' if self.groups is not None else 'classes'}"
                )
            return np.where(labels >= 0, labels, -1).astype(np.int32)
        table = np.full(self.n_columns, -1, np.int32)
        table[self.columns] = np.arange(self.n_classes, dtype=np.int32)
        if labels.size and labels.max() >= self.n_columns:
            raise UserError(f"row {int(labels.argmax())}: label {labels.max()} is not a column of the logits")
        return np.where(labels >= 0, table[np.maximum(labels, 0)], -1).astype(np.int32)

    def own_places(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return the places of labels of the set that the view is for; UserError where one is of no competing class.

        Such an image cannot be answered right, and whether it was meant to be left out is not known.
        """
        places = self.places(labels)
        outside = (np.asarray(labels) >= 0) & (places < 0)
        if outside.any():
            row = int(outside.argmax())
            raise UserError(
                f"{int(outside.sum())} of {len(places)} images have a label that the class mask leaves out"
                f" (row {row}: class {int(labels[row])}); correct class_mask, or give these images no label"
            )
        return places

    def groups_of(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return the super-class of each class, -1 where it is in none: labels of an unmapped set in this
        one's terms.
        """
        table = np.full(self.n_columns, -1, np.int32)
        for place, group in enumerate(self.groups or ()):
            table[list(group)] = place
        return np.where(labels >= 0, table[np.maximum(labels, 0)], -1).astype(np.int32)

    def classes(self, places: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return the class (or group) index of each place, -1 where the place is -1."""
        if self.groups is not None or self.mask is None:
            return places.astype(np.int32)
        return np.where(places >= 0, self.columns[np.maximum(places, 0)], -1).astype(np.int32)

    def reduce(self, block: NDArray[Any], temperature: float = 1.0, *, rule: str | None = None) -> NDArray[Any]:
        """Return (m, n_classes) logits of the competing classes; divided by the temperature where the rule
        needs it.

        With groups and the rules ``mean`` and ``restrict`` the result is the logarithm of the groups'
        (unnormalised)
        probabilities at that temperature; otherwise it is temperature-free, and float16 stays float16.
        """
        if self.groups is None:
            return block if self.mask is None else np.ascontiguousarray(block[:, self.columns])
        sizes = np.asarray([len(group) for group in self.groups])
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        members = block[:, self.columns].astype(np.float32)
        if (rule or self.rule) == "max":
            best: NDArray[np.float32] = np.maximum.reduceat(members, starts, axis=1)
            return best
        top = members.max(axis=1, keepdims=True)
        with np.errstate(under="ignore", divide="ignore"):
            mass = np.add.reduceat(np.exp((members - top) / np.float64(temperature)), starts, axis=1)
            if (rule or self.rule) == "mean":
                mass /= sizes
            logs: NDArray[np.float32] = (np.log(mass) + top / np.float64(temperature)).astype(np.float32)
            return logs


def view_statistics(
    view: ClassView,
    block: NDArray[Any],
    *,
    centers: NDArray[np.float32],
    places: NDArray[np.int32],
    valid: NDArray[np.bool_],
    temperatures: Sequence[float],
    gen: tuple[int, float] | None,
    out: RowStatistics,
    offset: int,
    threads: int = 1,
    ranks: Mapping[int, NDArray[np.int32]] | None = None,
) -> None:
    """Write the per-image statistics of a block under a view into ``out`` (see ``image_statistics``).

    Under the rule ``mean`` the prediction depends on the temperature: ``ranks`` takes the labels' ranks at temperatures
    other than the first, by their index.
    """
    if view.groups is None or view.rule == "max":
        image_statistics(
            view.reduce(block),
            centers=centers,
            labels=places,
            valid=valid,
            temperatures=temperatures,
            gen=gen,
            threads=threads,
            out=out,
            offset=offset,
        )
        return
    n = out.rank.size
    for k, temperature in enumerate(temperatures):
        part = RowStatistics(
            out.fixed if k == 0 else np.empty_like(out.fixed),
            out.scaled[k : k + 1],
            out.top if k == 0 else np.empty_like(out.top),
            out.rank if k == 0 else (ranks or {}).get(k, np.empty(n, np.int32)),
        )
        # The groups' own logits hold the temperature already, and so must the centre that is added back.
        image_statistics(
            view.reduce(block, temperature),
            centers=(centers / temperature).astype(np.float32),
            labels=places,
            valid=valid,
            gen=gen if k == 0 else None,
            threads=threads,
            out=part,
            offset=offset,
        )
    if view.rule == "restrict":
        _best_members(view, block, centers, places, valid, temperatures, out, offset, threads)


def _best_members(
    view: ClassView,
    block: NDArray[Any],
    centers: NDArray[np.float32],
    places: NDArray[np.int32],
    valid: NDArray[np.bool_],
    temperatures: Sequence[float],
    out: RowStatistics,
    offset: int,
    threads: int,
) -> None:
    """Overwrite prediction, rank, top logit, confidence and margin by those of the groups' best members."""
    m = block.shape[0]
    rows = slice(offset, offset + m)
    best = image_statistics(
        view.reduce(block, rule="max"),
        centers=centers,
        labels=places,
        valid=valid,
        temperatures=temperatures,
        gen=None,
        threads=threads,
    )
    out.top[:, rows] = best.top
    out.rank[rows] = best.rank
    out.fixed[kernels.MAX_LOGIT, rows] = best.fixed[kernels.MAX_LOGIT]
    out.fixed[kernels.LABEL_MARGIN, rows] = best.fixed[kernels.LABEL_MARGIN]
    for k, temperature in enumerate(temperatures):
        lse = out.scaled[k, kernels.LOG_SUM_EXP, rows].astype(np.float64)
        confidence = np.exp(best.fixed[kernels.MAX_LOGIT].astype(np.float64) / temperature - lse)
        ratio = confidence / best.scaled[k, kernels.CONFIDENCE]
        out.scaled[k, kernels.CONFIDENCE, rows] = np.minimum(confidence, 1.0)
        out.scaled[k, kernels.MARGIN, rows] = best.scaled[k, kernels.MARGIN] * ratio
