"""Pages made from the registries: metrics, detectors, calibrators, known datasets."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from analyze.metrics.spec import Evidence

WIDE = "---\nhide: [toc]\n---\n\n"
"""Front matter of pages that are one wide table."""
ARROWS = {"higher": "higher is better", "lower": "lower is better", "none": "neither is better"}
CHECKED = "compared with"
"""Head of the column that names the oracle and the test."""
NOT_OPTIONS = ("weights", "ignore_index", "threads")
"""Keyword arguments of many functions, described once above the table."""
NOTATION = (
    "In the formulas `z` are logits, `p` probabilities, `f` features, `W` and `b` the head, `c_i` the confidence and "
    "`y_i` the label of image `i` (or whether its prediction is right), `a_b` and `c_b` the accuracy and the mean "
    "confidence of bin `b`, `lse` the log-sum-exp. The last column says what the tests compare each row with, other "
    "programs by name, and which test compares (below `tests/test_analyze/`; where it names pytorch-ood, torch or "
    "torchmetrics also below `tests/test_extract/`).\n\n"
)


def cell(text: object) -> str:
    """Return text as one cell of a Markdown table; code between backticks is left as it is."""
    parts = " ".join(str(text).split()).replace("``", "`").split("`")
    for place in range(0, len(parts), 2):
        parts[place] = parts[place].replace("|", "\\|").replace("<", "&lt;").replace("&lt;br>", "<br>")
    return "`".join(parts)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def first_sentence(thing: object) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def limits(low: float, high: float) -> str:
    """Return a range as mathematics writes it."""
    ends = ["-inf" if low == float("-inf") else f"{low:g}", "inf" if high == float("inf") else f"{high:g}"]
    return f"{'(' if ends[0] == '-inf' else '['}{ends[0]}, {ends[1]}{')' if ends[1] == 'inf' else ']'}"


def evidence_cells(evidence: Evidence | None) -> tuple[str, str, str]:
    """Return formula, source, and what the tests compare with, as three cells."""
    if evidence is None:
        return "", "", ""
    left = f"<br>**Not verified:** {evidence.unverified}" if evidence.unverified else ""
    return f"`{evidence.formula}`", evidence.source, f"{evidence.oracle}<br>`{evidence.test}`{left}"


def options_of(function: Callable[..., Any]) -> str:
    """Return the keyword arguments of a function that have a default, as ``name=value``."""
    parameters = inspect.signature(function).parameters.values()
    kept = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in NOT_OPTIONS]
    return ", ".join(f"`{p.name}={p.default}`" for p in kept)


def metrics() -> str:
    """Return the page of all metrics."""
    from analyze.metrics.registry import METRICS
    from analyze.suites.further import METRICS as FURTHER

    rows = []
    for metric in METRICS.values():
        function = metric.function
        base = function.func if isinstance(function, functools.partial) else function
        name = f"<br>`{base.__qualname__}`" if base else ""
        ways = f"{ARROWS[metric.direction]}, {limits(metric.low, metric.high)}"
        shown = f"{metric.title.replace('{}', 'N')}<br>`{metric.name.replace('{}', 'N')}`<br>{ways}"
        options = options_of(function) if function else ""
        needs = ", ".join(metric.columns) + name + (f"<br>{options}" if options else "")
        formula, source, checked = evidence_cells(metric.evidence)
        rows.append((shown, formula, needs, source, checked))
    return (
        WIDE + "# Metrics\n\n"
        "Every metric of the result table. `N` stands for a number (`coverage_at_risk5`). A metric without columns "
        "is computed from several sets or from a fit. The functions are public: `from analyze.metrics import ...`.\n\n"
        + NOTATION
        + "By default the table holds what one pass over the logits and one sort of the confidences give. "
        f"What costs more, or answers a narrower question, is computed where it is named: `--only further`, or "
        f"one of {', '.join(f'`{name}`' for name in FURTHER)}; `[ood] further` adds the equal error rate and the "
        "partial AUROC, `[conformal] groups` the coverage by class and by size of the set. Soft labels, "
        "diversity of ensembles, sample weights and an ignored label are arguments of the functions.\n\n"
        + table(("metric, direction, range", "formula", "computed from, options", "source", CHECKED), rows)
    )


def detectors() -> str:
    """Return the page of all detectors."""
    from analyze.detectors import get, names

    rows = []
    for name in names():
        detector = get(name)
        kind = type(detector)
        options = ", ".join(f"`{key}={value}`" for key, value in detector.hyper_parameters.items())
        paper = ", ".join(f"`{key}={value}`" for key, value in kind.paper.items())
        needs = detector.needs
        wanted = [what for what in ("logits", "features", "head", "labels", "negatives") if getattr(needs, what)]
        fitted = f"<br>fitted on {' or '.join(needs.fitted_on)}" if needs.fitted_on else ""
        formula, source, checked = evidence_cells(kind.evidence)
        rows.append(
            (
                f"`{name}`", f"{formula}<br>{first_sentence(kind)}", limits(*kind.limits),
                ", ".join(wanted) + fitted + (f"<br>{options}" if options else "")
                + (f"<br>paper: {paper}" if paper else ""), source, checked,
            )
        )  # fmt: skip
    return (
        WIDE
        + "# Detectors\n\nPost-hoc detectors that work on stored logits, features and heads. A higher score always "
        "means more in-distribution. `analyze ood --detectors NAME` takes options in brackets. The options shown are "
        "those of `--defaults openood`; `--defaults paper` changes those after *paper*.\n\n"
        + NOTATION
        + table(("name", "formula", "range", "needs, options with defaults", "source", CHECKED), rows)
    )


def calibrators() -> str:
    """Return the page of all calibrators, above the reference of their functions."""
    from analyze.calibrators.by_name import CALIBRATORS

    rows = []
    for row in CALIBRATORS.values():
        formula, source, checked = evidence_cells(row.evidence)
        shown = f"`{row.name}`<br>`{row.function.__name__}`"
        rows.append((shown, formula, ", ".join(row.columns), options_of(row.function), source, checked))
    return table(("name", "formula", "fitted to", "options and defaults", "source", CHECKED), rows)


def recipes() -> str:
    """Return the page of the datasets that are known by name."""
    from extract.datasets.recipes import all_recipes

    rows = [
        (
            f"`{recipe.name}`", recipe.title, recipe.role, " or ".join(f"{count:,}" for count in recipe.expected),
            recipe.distance, recipe.shift_of, recipe.licence, recipe.source, recipe.basis or "no published number",
            recipe.note,
        )
        for recipe in all_recipes().values()
    ]  # fmt: skip
    return (
        WIDE + "# Known datasets\n\n"
        "Datasets that `extract datasets --root DIR` finds, checks and labels by themselves. A table "
        "in `datasets.toml` with one of these names needs only `path`.\n\n"
        + table(
            ("name", "what it is", "role", "images", "distance", "shift of", "licence", "source", "counts", "note"),
            rows,
        )
    )
