"""OOD detectors as a person chooses among them: what there is and what each needs, and where each can run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from analyze.detectors.base import Needs

_PLACES = {
    "validation": "ID rows set aside",
    "reference": "a reference of the training set",
    "bank": "a reference with its bank",
}


def catalogue() -> Table:
    """Return every detector with what it needs besides the stored outputs, and what it is."""
    import inspect

    from rich.text import Text

    from analyze.detectors.registry import DETECTORS
    from closerlook_common.console.terminal import as_text, plain_table

    table = plain_table("detectors")
    table.add_column("name", no_wrap=True)
    table.add_column("needs", overflow="fold", ratio=2)
    table.add_column("what it is", overflow="fold", ratio=5)
    for name, kind in DETECTORS.items():
        first = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("``", "").replace("*", "")
        table.add_row(as_text(name), Text(_needs(kind.needs)), Text(" ".join(first.split())))
    return table


def _needs(needs: Needs) -> str:
    parts = ["features"] if needs.features else ["logits"] if needs.logits else []
    parts += ["head"] if needs.head else []
    parts += ["negative labels"] if needs.negatives else []
    parts += ["best patches ('extract --arrays patches')"] if needs.patches else []
    wanted = dict(_PLACES)
    if needs.unit_sums:
        wanted["reference"] = "a reference with unit sums ('extract --arrays unit')"
    places = [place for place in needs.fitted_on if not (place == "bank" and "reference" in needs.fitted_on)]
    return ", ".join(parts + [" or ".join(wanted[place] for place in places)] * bool(places))


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

    from closerlook_common.console.terminal import as_text, plain_table, printable

    table = plain_table(title)
    table.add_column("detector", no_wrap=True)
    table.add_column("models", justify="right", no_wrap=True)
    table.add_column("where it cannot run, and why", overflow="fold")
    for name in detectors:
        reasons: dict[str, list[str]] = {}
        for model, given in found.items():
            if given[name]:
                # A reason that names the model is the same reason for each of them.
                reasons.setdefault(given[name].replace(f"model {model!r}", "the model"), []).append(model)
        able = len(found) - sum(map(len, reasons.values()))
        lines = [f"{_who(who, len(found))}: {why}" for why, who in reasons.items()]
        table.add_row(as_text(name), str(able), Text("\n".join(map(printable, lines))))
    return table


def _who(models: Sequence[str], everyone: int) -> str:
    if len(models) == everyone and everyone > 1:
        return f"all {everyone}"
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")


def leaderboard_table(
    title: str, board: pl.DataFrame, width: int, leaders: Mapping[str, set[str]] | None = None
) -> Iterator[Table]:
    """Yield detectors by OOD set as printable tables, the best of each set in bold, with those that equal it.

    Parameters
    ----------
    title
        Printed above.
    board
        Of ``analyze.ood.leaderboard``.
    width
        Columns of the terminal; sets that do not fit go on in a further table.
    leaders
        Of ``analyze.ood.leaders``: the detectors that are shown in bold in place of the best alone.
    """
    import polars as pl
    from rich.text import Text

    from closerlook_common.console.terminal import GAP, plain_table

    sets = [name for name in board.columns if name not in ("score", "models")]
    varies = board["models"].n_unique() > 1
    names = max([len("detector"), *board["score"].str.len_chars()]) + GAP + (len("models") + GAP) * varies
    pieces: list[list[str]] = [[]]
    for name in sets:
        if pieces[-1] and names + sum(max(len(n), 5) + GAP for n in (*pieces[-1], name)) > width:
            pieces.append([])
        pieces[-1].append(name)
    for piece in pieces:
        table = plain_table(title if piece is pieces[0] else "", "detector", *["models"] * varies, *piece)
        best = {name: set(board.filter(pl.col(name) == pl.col(name).max())["score"]) for name in piece}
        for name in piece:
            best[name] |= (leaders or {}).get(name, set())
        for row in board.iter_rows(named=True):
            cells = [Text(f"{row[name]:.3f}", style="bold" if row["score"] in best[name] else "") for name in piece]
            table.add_row(Text(row["score"]), *[str(row["models"])] * varies, *cells)
        yield table
