"""ImageNet-C: the error under each corruption in units of AlexNet's, and the mean of the fifteen (mCE)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from analyze.metrics.corruption import ALEXNET_ERRORS, N_SEVERITIES, corruption_error, mean_corruption_error
from analyze.suites.base import Case, ModelCase, Number, attempt
from closerlook_common.errors import UserError

NO_INTERVAL = "none: the corrupted sets are of the same images"
METRICS = ("corruption_error", "mean_corruption_error")
NAME = re.compile(r"imagenet-c-(?P<corruption>.+)-(?P<severity>[1-5])")
ALL = "imagenet-c"


def run(model: ModelCase) -> Iterator[Number]:
    """Yield a corruption error for each corruption that the baseline has, and their mean; nothing without ImageNet-C.

    Rows are of dataset ``imagenet-c``; the corruption is in ``subset``.
    """
    cases: dict[str, dict[int, Case]] = {}
    for name, case in sorted(model.cases.items()):
        if found := NAME.fullmatch(name):
            cases.setdefault(found["corruption"], {})[int(found["severity"])] = case
    if not cases:
        return
    errors: dict[str, list[float]] = {}
    for corruption, by_severity in cases.items():
        if corruption not in ALEXNET_ERRORS:
            continue
        given: dict[str, Any] = {"dataset": ALL, "subset": corruption, "stores": _digests(by_severity.values())}
        missing = [str(s) for s in range(1, N_SEVERITIES + 1) if s not in by_severity]
        if missing:
            reason = f"no store of severity {', '.join(missing)} of {corruption}"
            yield Number(metric="corruption_error", reason=reason, **given)
            continue
        try:
            errors[corruption] = [_error(by_severity[severity]) for severity in sorted(by_severity)]
        except UserError as error:
            yield Number(metric="corruption_error", reason=str(error), **given)
            continue
        n = sum(len(case.labelled()) for case in by_severity.values())
        value = corruption_error(errors[corruption], ALEXNET_ERRORS[corruption])
        yield Number(metric="corruption_error", value=value, n=n, interval=NO_INTERVAL, **given)
    used = [case for corruption in errors for case in cases[corruption].values()]
    mean = attempt(
        "mean_corruption_error",
        lambda: mean_corruption_error(errors),
        dataset=ALL,
        n=sum(len(case.labelled()) for case in used) or None,
        stores=_digests(used),
    )
    yield mean if mean.value is None else replace(mean, interval=NO_INTERVAL)


def _error(case: Case) -> float:
    rows = case.labelled()
    if not len(rows):
        raise UserError(f"dataset {case.summary.dataset.id} has no labelled image that could be read")
    return float(np.mean(rows["label_rank"] != 0))


def _digests(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(sorted({case.summary.digest for case in cases}))
