"""The distribution of a number of successes of independent trials, each with its own rate."""

from __future__ import annotations

from analyze.kernels.keeping import compiled


@compiled(nogil=True, cache=True)
def success_counts(rates, out):  # type: ignore[no-untyped-def]
    """Write the probabilities of 0 ... k - 1 successes; ``out`` (k,), what lies beyond is left out."""
    out[:] = 0.0
    out[0] = 1.0
    for i in range(rates.size):
        rate = rates[i]
        last = min(i + 1, out.size - 1)
        for k in range(last, 0, -1):
            out[k] = out[k] * (1.0 - rate) + out[k - 1] * rate
        out[0] *= 1.0 - rate
