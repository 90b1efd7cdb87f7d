"""Multinomial logistic regression with an L2 penalty: L-BFGS in float64 on blocks of rows, without torch.

The minimum is that of scikit-learn's ``LogisticRegression(C=1 / l2)``: the sum of the rows' cross-entropies plus
``l2 / 2`` times the sum of squared weights, biases without a penalty. L-BFGS runs in variables that are changed by the
Cholesky factor of ``X^T X / C + l2``, about the curvature; that moves no minimum and saves most of the iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from analyze.probes.banks import Bank
from closerlook_common.errors import UserError

ITERATIONS = 1000
"""Most iterations, as in CLIP's protocol."""

TOLERANCE = 1e-7
"""Largest component of the mean loss's gradient in the changed variables at which the fit ends."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted linear classifier.

    Attributes
    ----------
    weight : ndarray of shape (C, D)
        Sums to zero over classes.
    bias : ndarray of shape (C,)
        Sums to zero.
    l2
        Strength of the penalty, 1 / C in scikit-learn's words.
    loss
        Value at the minimum: cross-entropies summed over rows, plus the penalty.
    iterations
        Of L-BFGS.
    converged
        Whether it ended before the largest number of iterations.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    l2: float
    loss: float
    iterations: int
    converged: bool

    def logits(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (b, C) logits of (b, D) features."""
        found: NDArray[np.float64] = features @ self.weight.T
        found += self.bias
        return found


class Problem:
    """Rows to fit on, with what does not depend on the penalty.

    Parameters
    ----------
    bank
        Labelled rows; each class has one at least.

    Raises
    ------
    UserError
        A class has no rows, or there is only one.
    """

    def __init__(self, bank: Bank) -> None:
        counts = np.bincount(bank.labels, minlength=bank.n_classes)
        if bank.n_classes < 2:
            raise UserError("a linear probe needs two classes or more")
        if (counts == 0).any():
            empty = np.flatnonzero(counts == 0)
            raise UserError(
                f"a linear probe needs images of every class, and the reference has none of {len(empty)} of"
                f" {bank.n_classes} (class {empty[0]}, say); 'knn' needs no image of every class"
            )
        self.bank, self.width = bank, bank.width
        self.gram = np.zeros((self.width + 1, self.width + 1))
        for features, _ in bank.blocks():
            total = features.sum(axis=0)
            self.gram[:-1, :-1] += features.T @ features
            self.gram[:-1, -1] += total
            self.gram[-1, :-1] += total
        self.gram[-1, -1] = len(bank)

    def fit(self, l2: float, start: LinearProbe | None = None, tolerance: float = TOLERANCE) -> LinearProbe:
        """Return the minimum for one strength of the penalty.

        Parameters
        ----------
        l2
            Above 0.
        start
            A fit for another strength to begin with; zeros when None.
        tolerance
            See `TOLERANCE`.
        """
        if not (np.isfinite(l2) and l2 > 0):
            raise UserError(f"an L2 penalty of {l2:g} must be above 0")
        n, classes = len(self.bank), self.bank.n_classes
        inverse, factor = self._change(l2)
        shape = (classes, self.width + 1)
        begin = np.zeros(shape)
        if start is not None:
            begin = np.column_stack([start.weight, start.bias]) @ factor

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            both = flat.reshape(shape) @ inverse
            loss, gradient = self._loss(both)
            loss += l2 / 2 * float(np.vdot(both[:, :-1], both[:, :-1]))
            gradient[:, :-1] += l2 * both[:, :-1]
            return loss / n, (gradient @ inverse.T).ravel() / n

        found = minimize(
            objective,
            begin.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "gtol": tolerance, "ftol": 1e-15, "maxls": 50, "maxcor": 10},
        )
        both = found.x.reshape(shape) @ inverse
        both -= both.mean(axis=0)
        weight, bias = np.ascontiguousarray(both[:, :-1]), both[:, -1].copy()
        return LinearProbe(weight, bias, l2, float(found.fun) * n, int(found.nit), int(found.nit) < ITERATIONS)

    def _change(self, l2: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the change of variables: weights are variables times the first, variables weights times the second."""
        n, classes = len(self.bank), self.bank.n_classes
        curvature = self.gram / (n * classes)
        curvature[np.diag_indices(self.width)] += l2 / n
        scale = float(np.trace(curvature)) / (self.width + 1)
        curvature[np.diag_indices(self.width + 1)] += 1e-12 * scale
        factor = cholesky(curvature, lower=True)
        inverse: NDArray[np.float64] = solve_triangular(factor, np.eye(self.width + 1), lower=True)
        return inverse, factor

    def _loss(self, both: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the sum of cross-entropies and its gradient in weights and biases, (C, D + 1)."""
        weight, bias = both[:, :-1], both[:, -1]
        loss, gradient = 0.0, np.zeros_like(both)
        for features, labels in self.bank.blocks():
            logits = features @ weight.T
            logits += bias
            logits -= logits.max(axis=1, keepdims=True)
            rows = np.arange(len(labels))
            right = float(logits[rows, labels].sum())
            np.exp(logits, out=logits)
            sums = logits.sum(axis=1, keepdims=True)
            loss += float(np.log(sums).sum()) - right
            logits /= sums
            logits[rows, labels] -= 1
            gradient[:, :-1] += logits.T @ features
            gradient[:, -1] += logits.sum(axis=0)
        return loss, gradient


def fit_logistic(bank: Bank, l2: float, *, tolerance: float = TOLERANCE) -> LinearProbe:
    """Fit a multinomial logistic regression.

    Parameters
    ----------
    bank
        Labelled rows, read block by block.
    l2
        Strength of the penalty on the squared weights, with cross-entropies summed (not averaged) over rows; 1 / C in
        scikit-learn's words.
    tolerance
        See `TOLERANCE`.

    References
    ----------
    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", A.3: logistic
    regression by L-BFGS with at most 1,000 iterations on the encoder's features.
    """
    return Problem(bank).fit(l2, tolerance=tolerance)
