"""Vector scaling: a scale and a bias for every class's logit, fitted by minimal NLL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.statistics import spread_rows
from analyze.kernels.vector import vector_tiles
from analyze.metrics import _checks
from analyze.metrics._arrays import numbers
from analyze.reading.fitted_rows import fitted_rows
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

TILE = 256
"""Rows that are summed by one thread in one go."""

KEEP_BYTES = 64 << 20
_BLOCK_ROWS = 4096

Floats = NDArray[np.float64]
Part = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class VectorFit:
    """A fitted scale and bias per class; probabilities are softmax(scale * logits + bias).

    Attributes
    ----------
    scale, bias
        (C,) float64; the bias has mean zero (adding a constant to it changes nothing). NaN for columns that took
        no part in the fit.
    nll_before, nll_after
        Mean NLL in nats of the rows it was fitted on, at scale 1 and bias 0 and at the fit.
    n
        Rows it was fitted on.
    passes
        Passes over all rows.
    gradient
        Largest derivative of the mean NLL that is left, in standardised logits.
    """

    scale: Floats
    bias: Floats
    nll_before: float
    nll_after: float
    n: int
    passes: int
    gradient: float

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the parameters: equal for equal ones."""
        both = np.ascontiguousarray(np.stack([self.scale, self.bias]), "<f8")
        return hashlib.sha256(both.tobytes()).hexdigest()[:16]

    def apply(self, logits: ArrayLike) -> Floats:
        """Return scale * logits + bias, (n, C) float64. Logits must be the model's own, with no row's centre removed.

        A -inf stays -inf whatever the sign of the scale: it is a class that cannot win.
        """
        wide = numbers("logits", logits, 2).astype(np.float64)
        if wide.shape[1] != self.scale.size:
            raise UserError(f"logits (n, {self.scale.size}) expected, not {wide.shape}")
        with np.errstate(invalid="ignore"):
            moved: Floats = wide * self.scale + self.bias
        moved[wide == -np.inf] = -np.inf
        return moved


def fit_vector_scaling(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    tolerance: float = 1e-4,
    max_passes: int = 2000,
    threads: int = 1,
) -> VectorFit:
    """Fit vector scaling to logits and labels.

    The NLL is convex in all 2 C parameters, and L-BFGS (scipy) finds its minimum from scale 1 and bias 0, on logits
    standardised by class. All sums are float64, in an order that does not depend on the threads.

    Parameters
    ----------
    logits
        (n, C), any float type. Unlike for a temperature, a constant added to a row matters.
    labels
        (n,) in 0 ... C - 1; every class must occur.
    tolerance
        Largest derivative that counts as zero, as a share of 1/C (of the mean probability of a class).
    max_passes
        Passes over all rows after which it gives up.
    threads
        Threads over rows; changes nothing but the time.

    Raises
    ------
    UserError
        Where a logit is NaN or infinite (the row is named), a label is out of range, a class has no row (its bias
        would fall for ever), every row can be made right (there is no finite best), or the
        derivatives do not vanish.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    tolerance = _checks.fraction("tolerance", tolerance, open_ends=True)
    max_passes = _checks.whole_number("max_passes", max_passes)
    threads = _checks.whole_number("threads", threads)
    values = numbers("logits", logits, 2)
    if 0 in values.shape:
        raise UserError(f"logits are of shape {values.shape}: there are no rows to fit vector scaling on")
    classes = _checks.labels(labels, values.shape[1], len(values), other="logits")
    places = np.ascontiguousarray(classes, np.int32)
    _check(values, places, np.arange(len(values)))
    return _fit(lambda: [_part(values, np.zeros(len(values), np.float32), places)], tolerance, max_passes, threads)


def fit_vector_scaling_store(
    store: PredictionStore,
    rows: NDArray[np.bool_],
    *,
    tolerance: float = 1e-4,
    max_passes: int = 2000,
    threads: int = 1,
) -> VectorFit:
    """Fit vector scaling to some rows of a store, block by block (see ``fit_vector_scaling``).

    Chosen rows are kept in memory up to 64 MiB; beyond that they are read again in every pass. Where the dataset
    keeps only some classes, only these are fitted.

    Parameters
    ----------
    store
        With logits and labels.
    rows
        (n,) rows to fit on.
    """
    view, places, use = fitted_rows(store, rows, "vector scaling", of_classes=True)
    kept: dict[int, Part] = {}
    kept_bytes = 0

    def parts() -> Iterable[Part]:
        nonlocal kept_bytes
        for start in range(0, len(store), _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, len(store))
            if start in kept:
                yield kept[start]
                continue
            chosen = np.flatnonzero(use[start:stop])
            if not chosen.size:
                continue
            block = view.reduce(store.centred_logits(start, stop)[chosen])
            labels = np.ascontiguousarray(places[start + chosen])
            _check(block, labels, start + chosen)
            part = _part(block, np.asarray(store.logit_centers(start, stop))[chosen], labels)
            if kept_bytes + part[0].nbytes <= KEEP_BYTES:
                kept[start] = part
                kept_bytes += part[0].nbytes
            yield part

    try:
        fit = _fit(parts, tolerance, max_passes, threads)
    except UserError as error:
        raise UserError(f"{store.model.id} on {store.dataset.id}: {error}") from error
    if view.mask is None:
        return fit
    scale, bias = (np.full(view.n_columns, np.nan) for _ in range(2))
    scale[view.columns], bias[view.columns] = fit.scale, fit.bias
    return VectorFit(scale, bias, fit.nll_before, fit.nll_after, fit.n, fit.passes, fit.gradient)


def _part(values: NDArray[Any], centers: NDArray[Any], labels: NDArray[np.int32]) -> Part:
    if values.dtype == np.float16:
        values = values.view(np.uint16)
    elif values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return np.ascontiguousarray(values), np.ascontiguousarray(centers, np.float32), labels


def _check(values: NDArray[Any], labels: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> None:
    wrong = (labels < 0) | (labels >= values.shape[1])
    if wrong.any():
        i = int(wrong.argmax())
        raise UserError(f"row {int(rows[i])}: label {labels[i]} is not one of the {values.shape[1]} classes")
    bad = ~np.isfinite(values.astype(np.float32) if values.dtype == np.float16 else values).all(axis=1)
    if bad.any():
        raise UserError(f"row {int(rows[bad.argmax()])}: a logit is NaN or infinite")


def _fit(parts: Callable[[], Iterable[Part]], tolerance: float, max_passes: int, threads: int) -> VectorFit:
    from scipy.optimize import minimize

    mean, spread, n = _moments(parts())
    n_classes = mean.size
    passes = 1

    def loss(x: Floats) -> tuple[float, Floats]:
        nonlocal passes
        passes += 1
        scale = x[:n_classes] / spread
        bias = x[n_classes:] - mean * scale
        value, by_scale, by_bias, _ = _sums(parts(), scale, bias, threads)
        # The chain rule of scale = a / spread, bias = b - mean a / spread.
        gradient = np.concatenate([(by_scale - mean * by_bias) / spread, by_bias])
        return value / n, gradient / n

    start = np.concatenate([spread, mean])  # scale 1, bias 0
    before, _ = loss(start)
    limit = tolerance / n_classes
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_passes, "maxfun": max_passes, "maxcor": 30, "ftol": 0.0, "gtol": limit},
    )
    left = float(np.abs(found.jac).max())
    if not np.isfinite(found.fun) or left > limit:
        raise UserError(
            f"vector scaling did not converge in {passes} passes: a derivative of {left:.3g} is left,"
            f" {limit:.3g} allowed"
        )
    scale = found.x[:n_classes] / spread
    bias = found.x[n_classes:] - mean * scale
    if _sums(parts(), scale, bias, threads)[3] == 0:
        # Twice these parameters would have a lower NLL, and so on.
        raise UserError("every row can be made right: the best scale is infinite")
    return VectorFit(scale, bias - bias.mean(), before, float(found.fun), n, passes, left)


def _moments(parts: Iterable[Part]) -> tuple[Floats, Floats, int]:
    """Mean and spread of each class's logits, and the number of rows; a class without a row is refused."""
    count, total, squares = 0, np.zeros(0), np.zeros(0)
    seen = np.zeros(0, np.int64)
    shift = np.zeros(0)
    for values, centers, labels in parts:
        rows = values.view(np.float16) if values.dtype == np.uint16 else values
        if not count:
            total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
            seen = np.zeros(rows.shape[1], np.int64)
            shift = rows[0].astype(np.float64) + centers[0]
        for start in range(0, len(rows), TILE):
            z = rows[start : start + TILE].astype(np.float64) + centers[start : start + TILE, None] - shift
            total += z.sum(axis=0)
            squares += (z * z).sum(axis=0)
        seen += np.bincount(labels, minlength=seen.size)
        count += len(rows)
    empty = np.flatnonzero(seen == 0)
    if empty.size:
        more = f" and {empty.size - 1} more" if empty.size > 1 else ""
        raise UserError(f"class {empty[0]}{more} has no row to fit on: its bias would decrease without limit")
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    if not spread.all():
        raise UserError(f"the logits of class {int((spread == 0).argmax())} are all equal: they have no scale")
    return mean + shift, spread, count


def _sums(parts: Iterable[Part], scale: Floats, bias: Floats, threads: int) -> tuple[float, Floats, Floats, int]:
    """NLL, its derivatives by scale and bias, and the rows that are wrong, summed over all rows."""
    n_classes = scale.size
    whole = np.zeros(2 + 2 * n_classes)
    for values, centers, labels in parts:
        tiles = -(-len(values) // TILE)
        out = np.empty((tiles, whole.size))

        def work(first: int, last: int, part: Part = (values, centers, labels), out: Floats = out) -> int:
            vector_tiles(*part, scale, bias, TILE, out, first, last)
            return -1

        spread_rows(work, tiles, threads)
        for line in out:
            whole += line
    return float(whole[0]), whole[1 : 1 + n_classes], whole[1 + n_classes : -1], int(whole[-1])
