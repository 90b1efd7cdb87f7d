"""Temperature scaling: the one T that minimises the NLL of softmax(logits / T), by safeguarded Newton on
1/T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.fitting import moments_rows, suspect_rows
from analyze.kernels.statistics import as_rows, spread_rows
from analyze.metrics import _checks
from analyze.metrics._arrays import as_array, numbers
from analyze.reading.fitted_rows import fitted_rows
from analyze.reading.read_ahead import read_ahead
from analyze.reading.views import ClassView
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

WARM_ROWS = 4096
KEEP_BYTES = 64 << 20
_PATIENCE = 12


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature.

    Attributes
    ----------
    temperature
        T > 0; probabilities are softmax(logits / T). Above 1 the model was overconfident.
    nll_before, nll_after
        Mean NLL in nats of the rows it was fitted on, at T = 1 and at T.
    n
        Rows it was fitted on.
    standard_error
        Of the temperature, from the spread of the rows' derivatives (sandwich estimate).
    passes
        Passes over all rows.
    """

    temperature: float
    nll_before: float
    nll_after: float
    n: int
    standard_error: float
    passes: int

    def apply(self, logits: ArrayLike) -> NDArray[Any]:
        """Return logits / T as floats: float16 and float32 stay so, integers and lists become float64.

        Parameters
        ----------
        logits
            Of any number of axes; lists, arrays, tensors and frames.
        """
        values = as_array("logits", logits)
        if values.dtype.kind not in "iuf":
            raise UserError(f"logits must be real numbers; their type is {values.dtype}")
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        scaled: NDArray[Any] = values / values.dtype.type(self.temperature)
        return scaled


def fit_temperature(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    bounds: tuple[float, float] = (1e-3, 1e3),
    tolerance: float = 1e-8,
    max_passes: int = 60,
    threads: int = 1,
) -> TemperatureFit:
    """Fit a temperature to logits and labels.

    The NLL is convex in 1/T, so the minimum is the one zero of its derivative, the mean over rows of
    E_p[z] - z_label. All sums are float64. Guo et al. 2017 (the objective); the solver is Newton's, kept
    inside a
    bracket.

    Parameters
    ----------
    logits
        (n, C), any float type; a constant added to a row changes nothing.
    labels
        (n,) in 0 ... C - 1.
    bounds
        Least and largest T that count as an answer.
    tolerance
        Relative size of the last step in 1/T.
    max_passes
        Passes over all rows after which it gives up.
    threads
        Threads over rows; changes nothing but the time.

    Raises
    ------
    UserError
        Where a logit is NaN or infinite (the row is named), a label is out of range, the minimum lies at a
        bound
        (all rows right, or labels that the logits do not know), all logits of every row are equal, or the
        passes do
        not suffice.
    """
    tolerance = _checks.fraction("tolerance", tolerance, open_ends=True)
    max_passes = _checks.whole_number("max_passes", max_passes)
    threads = _checks.whole_number("threads", threads)
    values = numbers("logits", logits, 2)
    if 0 in values.shape:
        raise UserError(f"logits are of shape {values.shape}: there are no rows to fit a temperature on")
    classes = _checks.labels(labels, values.shape[1], len(values), other="logits")
    places = np.ascontiguousarray(classes, np.int32)
    _check(values, places)
    rows = values.view(np.uint16) if values.dtype == np.float16 else values
    if rows.dtype not in (np.uint16, np.float32, np.float64):
        rows = rows.astype(np.float64)
    rows = np.ascontiguousarray(rows)
    step = max(1, len(rows) // WARM_ROWS)
    warm = [(np.ascontiguousarray(rows[::step]), np.ascontiguousarray(places[::step]))] if step > 1 else None
    return _fit([(rows, places)], warm, _pair(bounds), tolerance, max_passes, threads)


def fit_temperature_store(
    store: PredictionStore,
    rows: NDArray[np.bool_],
    *,
    view: ClassView | None = None,
    bounds: tuple[float, float] = (1e-3, 1e3),
    tolerance: float = 1e-8,
    max_passes: int = 60,
    block_rows: int = 4096,
    threads: int = 1,
) -> TemperatureFit:
    """Fit a temperature to some rows of a store, block by block (see ``fit_temperature``).

    Chosen rows are kept in memory up to 64 MiB; beyond that they are read again in every pass.

    Parameters
    ----------
    store
        With logits and labels.
    rows
        (n,) rows to fit on.
    view
        Class view; the dataset's own when None. Of a many-to-one map only the rule ``max``, whose logits
        do not
        depend on T.
    """
    what = f"{store.model.id} on {store.dataset.id}"
    view, places, use = fitted_rows(store, rows, "a temperature", view=view)
    if view.groups is not None and view.rule != "max":
        raise UserError(f"{what}: a temperature is not fitted under the class map rule {view.rule!r}, only 'max'")
    starts = [start for start in range(0, len(store), block_rows) if use[start : start + block_rows].any()]
    kept: dict[int, tuple[NDArray[Any], NDArray[np.int32]]] = {}

    def read(start: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
        if start in kept:
            return kept[start]
        chosen = np.flatnonzero(use[start : start + block_rows])
        block = view.reduce(store.centred_logits(start, start + block_rows)[chosen])
        labels = np.ascontiguousarray(places[start + chosen])
        _check(block, labels, start + chosen)
        return block.view(np.uint16) if block.dtype == np.float16 else block, labels

    def blocks() -> Iterable[tuple[NDArray[Any], NDArray[np.int32]]]:
        if len(kept) == len(starts):
            yield from (kept[start] for start in starts)
            return
        kept_bytes = sum(part[0].nbytes for part in kept.values())
        for start, part in zip(starts, read_ahead(read, starts, threads), strict=True):
            if start not in kept and kept_bytes + part[0].nbytes <= KEEP_BYTES:
                kept[start] = part
                kept_bytes += part[0].nbytes
            yield part

    step = max(1, int(use.sum()) // WARM_ROWS)
    warm = (
        [(np.ascontiguousarray(b[::step]), np.ascontiguousarray(p[::step])) for b, p in blocks()] if step > 1 else None
    )
    try:
        return _fit(blocks, warm, bounds, tolerance, max_passes, threads)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def _check(values: NDArray[Any], places: NDArray[np.int32], rows: NDArray[np.integer[Any]] | None = None) -> None:
    if len(values) == 0:
        raise UserError("no rows to fit a temperature on")
    wrong = (places < 0) | (places >= values.shape[1])
    if wrong.any():
        i = int(wrong.argmax())
        where = i if rows is None else int(rows[i])
        raise UserError(f"row {where}: label {places[i]} is not one of the {values.shape[1]} classes")
    # A -inf is a class that cannot win; anything else that is not finite is refused.
    if values.dtype in (np.float16, np.float32):
        suspects = np.empty(len(values), np.bool_)
        suspect_rows(as_rows(values), suspects)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            suspects = ~np.isfinite(values.sum(axis=1, dtype=np.float64))
    for i in np.flatnonzero(suspects).tolist():
        row = values[i].astype(np.float64)
        if np.isnan(row).any() or (row == np.inf).any() or row[places[i]] == -np.inf:
            where = int(i if rows is None else rows[i])
            raise UserError(f"row {where}: a logit is NaN or infinite")


def _moments(
    blocks: Iterable[tuple[NDArray[Any], NDArray[np.int32]]], betas: Sequence[float], threads: int
) -> list[NDArray[Any]]:
    """Go through the rows once; for each beta the mean NLL and its three derivatives, the mean squared first
    derivative, and n.

    Rows are summed in one fixed order, whatever the blocks.
    """
    parts: list[list[NDArray[np.float64]]] = [[] for _ in betas]
    for rows, labels in blocks:
        for part, beta in zip(parts, betas, strict=True):
            out = np.empty((4, len(rows)))

            def work(
                start: int, stop: int, rows: Any = rows, labels: Any = labels, beta: float = beta, out: Any = out
            ) -> int:
                moments_rows(rows, labels, beta, out, start, stop)
                return -1

            spread_rows(work, len(rows), threads)
            part.append(out)
    found = []
    for part in parts:
        each = np.ascontiguousarray(np.concatenate(part, axis=1))
        n = each.shape[1]
        found.append(np.append(each.sum(axis=1) / n, (float((each[1] ** 2).mean()), n)))
    return found


def _fit(
    blocks: Sequence[tuple[NDArray[Any], NDArray[np.int32]]] | Callable[[], Iterable[Any]],
    warm: list[tuple[NDArray[Any], NDArray[np.int32]]] | None,
    bounds: tuple[float, float],
    tolerance: float,
    max_passes: int,
    threads: int,
) -> TemperatureFit:
    def at(*betas: float) -> list[NDArray[Any]]:
        return _moments(blocks() if callable(blocks) else blocks, betas, threads)

    start = 1.0
    if warm is not None:
        # A few thousand rows bring the solver to the neighbourhood for a twentieth of the cost.
        try:
            start, _, _ = newton(lambda beta: _moments(warm, [beta], threads)[0], bounds, 1e-3, max_passes, 1.0)
        except UserError:
            start = 1.0
    known = dict(zip((1.0, start), at(1.0, start) if start != 1.0 else at(1.0), strict=False))
    first = known[1.0]
    if first[1] == 0.0 and first[2] == 0.0:
        raise UserError("the NLL does not depend on the temperature: the logits of every row are all equal")
    beta, last, passes = newton(lambda beta: at(beta)[0], bounds, tolerance, max_passes, start, known)
    n = int(first[5])
    # Var(beta) = E[g^2] / (n H^2); T = 1 / beta.
    error = math.sqrt(float(last[4]) / n) / float(last[2]) / beta**2
    return TemperatureFit(1.0 / beta, float(first[0]), float(last[0]), n, error, passes + 1)


def newton(
    moments: Callable[[float], NDArray[Any]],
    bounds: tuple[float, float],
    tolerance: float,
    max_passes: int,
    start: float,
    known: dict[float, NDArray[Any]] | None = None,
) -> tuple[float, NDArray[Any], int]:
    """Find the zero of the derivative of a convex function of beta = 1/T inside a shrinking bracket.

    Steps are Halley's, Newton's with the third derivative: what is left after one is about the cube of its size.
    So the last step is taken without looking again, and the value there follows from the derivatives.

    Parameters
    ----------
    moments
        beta -> (value, first, second and third derivative, ...).
    bounds
        Least and largest T.
    tolerance
        Relative error of beta at which it stops; a step of a tenth of its root leaves less.
    max_passes
        Calls of ``moments`` at most.
    start
        First beta.
    known
        Values that need no call.

    Returns
    -------
    tuple
        beta, the moments there, the number of calls.

    Raises
    ------
    UserError
        See ``fit_temperature``.
    """
    bounds = _pair(bounds)
    known = dict(known or {})
    low, high = 1.0 / bounds[1], 1.0 / bounds[0]
    beta = min(max(start, low), high)
    calls = 0
    small = 0.1 * math.sqrt(tolerance)
    while True:
        if beta not in known:
            if calls >= max_passes:
                raise UserError(f"the temperature did not converge in {max_passes} passes (T is near {1 / beta:.6g})")
            known[beta] = moments(beta)
            calls += 1
        value, slope, curve, third = (float(v) for v in known[beta][:4])
        if not math.isfinite(value + slope + curve):
            raise UserError(f"the NLL at T = {1 / beta:.6g} is not finite")
        if slope > 0.0:
            high = beta
        else:
            low = beta
        if calls == _PATIENCE:
            # Rows that are all right let Newton walk for ever: ask the end of the bracket that it walks to.
            end = high if slope < 0.0 else low
            known[end] = moments(end)
            calls += 1
            if (known[end][1] <= 0.0) == (slope < 0.0) and end in (1.0 / bounds[0], 1.0 / bounds[1]):
                raise _at_bound(1.0 / end)
        # Where the step leaves the bracket the geometric middle takes its place: T spans orders of magnitude.
        room = 2.0 * curve**2 - slope * third
        step = beta - (2.0 * slope * curve / room if room > curve**2 else slope / curve) if curve > 0.0 else math.nan
        inside = low <= step <= high
        following = step if inside else math.sqrt(low * high)
        moved = following - beta
        if abs(moved) <= (small if inside else tolerance) * beta:
            at_end = [
                t for t, end in zip(bounds, (1 / bounds[0], 1 / bounds[1]), strict=True) if _close(following, end)
            ]
            if at_end:
                raise _at_bound(at_end[0])
            last = known[beta].copy()
            last[0] = value + moved * (slope + moved * (curve / 2 + moved * third / 6))
            last[1] = slope + moved * (curve + moved * third / 2)
            last[2] = curve + moved * third
            return following, last, calls
        beta = following


def _pair(bounds: object) -> tuple[float, float]:
    """Return the least and the largest temperature."""
    entries = list(bounds) if isinstance(bounds, Iterable) and not isinstance(bounds, str) else []
    if len(entries) != 2:
        raise UserError(f"bounds must be the least and the largest temperature; got {bounds!r}")
    least, largest = (_checks.number("bounds", entry, above=0) for entry in entries)
    if least >= largest:
        raise UserError(f"bounds must be positive and in order; got {bounds!r}")
    return least, largest


def _at_bound(temperature: float) -> UserError:
    return UserError(
        f"the best temperature lies at the bound {temperature:g}: the NLL only falls towards it"
        " (every row right, or labels that are unrelated to the logits)"
    )


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * b
