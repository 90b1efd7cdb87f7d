"""The datasets of a run together: one may name another whose classes it shares."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from closerlook_common.errors import CloserlookError, UserError
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.datasets.base import Dataset
from extract.datasets.resolving import resolve
from extract.datasets.spaces import FOLDERS, in_class_space
from extract.datasets.specs import DatasetSpec


def resolve_all(
    specs: Sequence[DatasetSpec], progress: Callable[[str], None] = lambda name: None
) -> tuple[list[Dataset], dict[str, CloserlookError]]:
    """List the images of every dataset of a run.

    ``classes = "NAME"`` takes the classes of the dataset ``NAME``: for labels that are among them (a shifted set with
    fewer classes), and for an OOD set, whose logits are of them.

    Parameters
    ----------
    specs
        Of all datasets; their names are distinguished.
    progress
        Called with each name before its turn.

    Returns
    -------
    list of Dataset
        Those that can be used, in the order of ``specs``.
    dict of str to CloserlookError
        Name -> why one cannot.
    """
    lenders = {spec.name for spec in specs} - {*BUILT_IN, FOLDERS, ""}
    found: dict[str, Dataset] = {}
    reasons: dict[str, CloserlookError] = {}
    borrowers = [spec for spec in specs if isinstance(spec.classes, str) and spec.classes in lenders - {spec.name}]
    for spec in [*(spec for spec in specs if spec not in borrowers), *borrowers]:
        progress(spec.name)
        try:
            found[spec.name] = _borrowed(spec, found) if spec in borrowers else resolve(spec)
        except CloserlookError as error:
            reasons[spec.name] = error
    return [found[spec.name] for spec in specs if spec.name in found], reasons


def _borrowed(spec: DatasetSpec, found: dict[str, Dataset]) -> Dataset:
    lender = found.get(str(spec.classes))
    space = lender.class_space if lender is not None else None
    if space is None:
        why = "has no classes" if lender is not None else "cannot be read, or takes its classes from another itself"
        raise UserError(f"{spec.where}: classes = {spec.classes!r}: that dataset {why}")
    return _in(spec, space)


def _in(spec: DatasetSpec, space: ClassSpace) -> Dataset:
    unlabelled = None
    if spec.role in ("", "ood"):  # else it is none, and to list its images twice would be for nothing
        # A recipe gives an OOD set its role and its counts, and knows nothing of classes.
        with contextlib.suppress(UserError):
            unlabelled = resolve(replace(spec, classes=""))
    if unlabelled is not None and unlabelled.card.role == "ood" and unlabelled.class_space is None:
        return in_class_space(unlabelled, space)
    return resolve(replace(spec, classes=space))
