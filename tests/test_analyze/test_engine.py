"""One engine for every command: what was computed is kept, what changed is computed again, failures stay apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import cache_schema
from analyze.annotations import Annotations, image_keys
from analyze.cli import main
from analyze.evaluate.cells import Cells, KeptCells
from analyze.evaluate.engine import Cell, Computed, Running, run_works
from analyze.evaluate.factor_tables import FactorPlan, evaluate_factors
from analyze.results import ResultRow, read_results
from analyze.settings import study_defaults
from closerlook_common.errors import UserError


@dataclass
class Counted:
    """Cells of given keys; fails where its name says so."""

    name: str
    keys: tuple[str, ...]
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        return [Cell(f"{self.name} {key}", key) for key in self.keys]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        assert threads >= 1
        for cell in missing:
            if cell.of == "broken":
                raise UserError("a store is broken")
            self.computed.append(cell.of)
            self.notes.append(f"{cell.of} of {self.name}")
            yield Computed(
                cell, [ResultRow(model=self.name, dataset=cell.of, metric="top1", value=1.0)], cell.of != "once"
            )


@pytest.mark.parametrize("jobs", [1, 3])
def test_missing_cells_are_computed_and_one_failure_stops_nothing(tmp_path: Path, jobs: int) -> None:
    seen: list[tuple[str, int]] = []
    table = tmp_path / "r.parquet"

    def run(works: list[Counted]):
        with KeptCells(table, "test") as kept:
            noted = lambda name, _keys, computed: seen.append((name, computed))  # noqa: E731
            found = run_works(works, kept.cells, Running(jobs=jobs), finished=noted)
            return found, kept.cells.table(found.keys)

    first, rows = run([Counted("a", ("x", "once")), Counted("b", ("x", "broken")), Counted("c", ("y",))])
    assert first.failures == {"b": "a store is broken"}
    assert rows.select("model", "dataset").rows() == [("a", "x"), ("a", "once"), ("c", "y")]
    assert sorted(seen) == [("a", 2), ("c", 1)]
    assert sorted(first.notes) == ["once of a", "x of a", "y of c"]
    works = [Counted("a", ("x", "once", "new")), Counted("b", ("x",)), Counted("c", ("y",))]
    second, rows = run(works)
    # A cell of a work that failed later is kept too; one that was not to last is computed again.
    assert [work.computed for work in works] == [["once", "new"], [], []]
    assert (second.computed, second.reused) == (2, 3)
    assert rows["dataset"].to_list() == ["x", "once", "new", "x", "y"]


def test_each_command_keeps_cells_of_its_own(toy_store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factors = {"pose": [0, 1] * 100, "color": [1, 0] * 100, "top_factor": ["color", "pose"] * 100}
    cache = toy_store(metadata=factors).path
    toy_store(dataset="far", role="ood")
    out = tmp_path / "r.parquet"
    root = str(cache.parent.parent)
    for words in (["metrics", root], ["factors", root], ["ood", root, "--detectors", "msp,energy"]):
        assert main([*words, "-o", str(out)]) == 0
    before = read_results(out)
    capsys.readouterr()
    assert main(["ood", root, "--detectors", "msp,energy,mls", "-o", str(out)]) == 0
    assert main(["ood", root, "--detectors", "msp,energy,mls", "-o", str(out)]) == 0
    printed = capsys.readouterr().err
    assert "10 rows added" in printed, "those of the new detector alone"
    assert "0 rows added" in printed
    assert before.join(read_results(out), on=before.columns, how="anti", nulls_equal=True).is_empty()
    hidden = sorted(path.name for path in tmp_path.glob(".r.*cells.parquet"))
    assert hidden == [".r.cells.parquet", ".r.factors.cells.parquet", ".r.ood.cells.parquet"]
    # The table is made again from what is known.
    out.unlink()
    assert main(["ood", root, "--detectors", "mls", "-o", str(out)]) == 0
    assert read_results(out)["score"].unique().to_list() == ["mls"]


def test_numbers_by_factor_follow_the_annotations(toy_store) -> None:
    cache = cache_schema.open_cache(toy_store().path.parent.parent)
    keys = image_keys([f"{i:06d}.jpg" for i in range(200)])

    def annotated(every: int) -> Annotations:
        members = {"pose": np.arange(200) % every == 0}
        return Annotations("x", "multi", keys, members, np.zeros(200, np.bool_))

    cells = Cells(None)

    def run(every: int):
        return evaluate_factors(FactorPlan(study_defaults(), annotated(every)), cache, cells)

    first, again, other = run(2), run(2), run(3)
    assert (first.computed, again.computed, other.computed) == (1, 0, 1)
    assert again.table.equals(first.table)
    assert other.table.filter(factor="pose", metric="factor_accuracy")["n"].to_list() == [67]
