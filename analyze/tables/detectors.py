"""OOD detectors as a person chooses among them: what there is and what each needs, and where each can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from analyze.detectors.base import Needs

_PLACES = {
    "validation": "ID rows set aside",
    "reference": "a reference of the training set",
    "bank": "a reference with its bank",
}


def catalogue() -> Table:
    """Return every detector with what it needs beside the stored outputs, and what it is."""
    import inspect

    from rich.text import Text

    from analyze.detectors.registry import DETECTORS
    from cache_schema.console.terminal import plain_table

    table = plain_table("detectors")
    table.add_column("name", no_wrap=True)
    table.add_column("needs", overflow="fold", ratio=2)
    table.add_column("what it is", overflow="fold", ratio=5)
    for name, kind in DETECTORS.items():
        first = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("``", "").replace("*", "")
        table.add_row(Text(name), Text(_needs(kind.needs)), Text(" ".join(first.split())))
    return table


def _needs(needs: Needs) -> str:
    told = ["features"] if needs.features else ["logits"] if needs.logits else []
    told += ["head"] if needs.head else []
    told += ["negative labels"] if needs.negatives else []
    places = [place for place in needs.fitted_on if not (place == "bank" and "reference" in needs.fitted_on)]
    return ", ".join(told + [" or ".join(_PLACES[place] for place in places)] * bool(places))


def availability_table(title: str, found: Mapping[str, Mapping[str, str]], detectors: Sequence[str]) -> Table:
    """Return how many models each detector can run on, and where it cannot, why.

    Parameters
    ----------
    title
        Printed above.
    found
        Model -> detector -> why it cannot run, empty where it can; of ``analyze.ood.availability``.
    detectors
        The rows, in order.
    """
    from rich.text import Text

    from cache_schema.console.terminal import plain_table

    table = plain_table(title)
    table.add_column("detector", no_wrap=True)
    table.add_column("models", justify="right", no_wrap=True)
    table.add_column("where it cannot run, and why", overflow="fold")
    for name in detectors:
        reasons: dict[str, list[str]] = {}
        for model, told in found.items():
            if told[name]:
                # A reason that names the model is the same reason for each of them.
                reasons.setdefault(told[name].replace(f"model {model!r}", "the model"), []).append(model)
        able = len(found) - sum(map(len, reasons.values()))
        lines = [f"{_who(who, len(found))}: {why}" for why, who in reasons.items()]
        table.add_row(Text(name), str(able), Text("\n".join(lines)))
    return table


def _who(models: Sequence[str], everyone: int) -> str:
    if len(models) == everyone and everyone > 1:
        return f"all {everyone}"
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
