"""A metric of one's own: a function of per-image columns and its row.

    analyze metrics CACHE --plugins examples/own_metric.py --only top1,confidence_when_wrong -o results.parquet

A function may take confidences, correct, labels, predictions, label_ranks, label_log_probabilities, entropies, margins,
sums_of_squares, max_logits and log_sum_exps: one number an image each. Its interval is the bootstrap over images.
"""

from closerlook.plugins import Metric


def confidence_when_wrong(confidences, correct):
    """Return the mean confidence of the wrong predictions, in [0, 1]. Lower is better."""
    if correct.all():
        raise ValueError("no prediction is wrong")
    return confidences[~correct].mean()


METRICS = (
    Metric(
        "confidence_when_wrong", "Confidence when wrong", "lower", "fraction",
        columns=("confidences", "correct"), function=confidence_when_wrong,
    ),
)  # fmt: skip
