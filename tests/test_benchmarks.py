"""Figures of the benchmarks: written by the scripts into one file, and the tables of the READMEs made of it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:  # only for these: other files of the folder have names of installed packages
    import record
    import write_tables
    from declared import DECLARED
finally:
    sys.path.remove(str(BENCHMARKS))

LAYOUTS = write_tables.layouts()
SCRIPTS = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text("utf-8") and path.stem != "write_tables"
)


def committed() -> dict[str, record.Row]:
    return record.read(BENCHMARKS / "figures.json")


def test_every_table_is_what_the_file_gives() -> None:
    shown = []
    for path in write_tables.pages():
        text = path.read_text("utf-8")
        assert write_tables.written(text, LAYOUTS, committed()) == text, f"make tables: {path.name} differs"
        shown += [name for _, name, _ in write_tables.BLOCK.findall(text)]
    assert sorted(shown) == sorted(LAYOUTS)


def test_a_table_without_its_runs_shows_rows_that_the_page_of_all_benchmarks_has_with_theirs() -> None:
    page = (BENCHMARKS / "README.md").read_text("utf-8")
    stated = {row for _, name, _ in write_tables.BLOCK.findall(page) for row in write_tables.names_in(LAYOUTS[name])}
    left_out = [layout for layout in LAYOUTS.values() if write_tables.STATED_THERE in layout]
    assert left_out == [LAYOUTS["readme"]]
    assert set(write_tables.names_in(LAYOUTS["readme"])) <= stated


def test_a_changed_figure_and_a_changed_cell_are_found() -> None:
    rows, page = committed(), (ROOT / "README.md").read_text("utf-8")
    row = rows["detectors/dice/pytorch-ood"]
    other = {**rows, row.name: record.Row(**{**vars(row), "figure": (99.0,)})}
    assert "**99 times** faster" in write_tables.written(page, LAYOUTS, other)
    shown = f"**{row:,.0f} times** faster"
    assert page.count(shown) == 1
    assert write_tables.written(page.replace(shown, "**9 times** faster"), LAYOUTS, rows) == page
    with pytest.raises(KeyError, match="no row 'extraction/cpu/a'"):
        write_tables.written(page, LAYOUTS, {k: v for k, v in rows.items() if k != "extraction/cpu/a"})
    with pytest.raises(ValueError, match="lacks its"):
        write_tables.written(page.replace("<!-- end of figures -->", ""), LAYOUTS, rows)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_no_figure_is_typed_by_hand(name: str) -> None:
    assert write_tables.names_in(LAYOUTS[name])
    assert write_tables.typed_by_hand(LAYOUTS[name]) == []


def test_the_site_shows_tables_with_their_runs() -> None:
    spec = importlib.util.spec_from_file_location("files_elsewhere", ROOT / "docs" / "hooks" / "files_elsewhere.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    for heading, name in (("interval", "coverage of intervals"), ("families", "size of tests over families")):
        assert hook.benchmark_table(heading) == write_tables.filled(LAYOUTS[name], committed())


def test_a_figure_typed_by_hand_is_found() -> None:
    table = "| part | measured |\n| --- | --- |\n| 10 images | {a/b:.1f} s in float32 |\n| 20 images | 3.1 s |"
    assert write_tables.typed_by_hand(table) == ["3.1 s"]
    assert write_tables.typed_by_hand(table.replace("{a/b:.1f} s", "{a/b:.1f} of 7 s")) == [
        "{a/b:.1f} of 7 s in float32",
        "3.1 s",
    ]


def test_every_script_declares_and_writes_its_rows() -> None:
    assert list(SCRIPTS) == sorted(DECLARED)
    for script in SCRIPTS:
        text = (BENCHMARKS / f"{script}.py").read_text("utf-8")
        assert f'Recorder("{script}", parser, args' in text
        assert "record.write()" in text


def test_rows_of_the_file_are_declared_and_in_its_own_form() -> None:
    rows = committed()
    for row in rows.values():
        script, name = row.name.split("/", 1)
        assert DECLARED[script][name] == (row.unit, row.mark), row.name
    assert record.text_of(rows.values()) == (BENCHMARKS / "figures.json").read_text("utf-8")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    whole = json.loads((BENCHMARKS / "figures.json").read_text("utf-8"))
    whole["runs"].append(whole["runs"][0])
    (tmp_path / "figures.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="is there twice"):
        record.read(tmp_path / "figures.json")


def test_a_run_replaces_its_own_rows_alone(tmp_path: Path) -> None:
    old, path = committed(), tmp_path / "figures.json"
    record.merge(path, old.values())
    new = record.Row(name="store/zarr/read", figure=(0.5,), unit="s", date="2026-12-01", command="python x.py")
    record.merge(path, [new])
    assert record.read(path) == {**old, new.name: new}
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def recorder(*words: str, seeded: bool = True) -> record.Recorder:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--folder")
    args = parser.parse_args(words)
    return record.Recorder("store", parser, args, sizes={"rows": (60,)}, seeded=seeded)


def test_only_whole_runs_of_a_quiet_machine_reach_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(record.FOLDER, str(tmp_path))

    def path_of(words: tuple[str, ...], busy: float) -> str:
        monkeypatch.setattr(record, "busy_cores", lambda: busy)
        run = recorder(*words, seeded=False)
        run.add("zarr/read", 0.1)
        return run.write().name

    assert path_of((), 0.0) == "figures.json"
    assert path_of(("--rows", "60", "--folder", "/somewhere"), 0.0) == "figures.json"
    (row,) = record.read(tmp_path / "figures.json").values()
    assert (row.command, row.note) == ("python benchmarks/store.py --rows 60", "")
    assert (row.machine.cores, row.machine.python) == (os.cpu_count(), ".".join(map(str, sys.version_info[:3])))
    assert path_of(("--rows", "7"), 0.0) == "figures-trial.json"
    assert path_of((), 1.5) == "figures-trial.json"
    (row,) = record.read(tmp_path / "figures-trial.json").values()
    assert row.note == "busy machine: 1.5 cores used by other programs"


def test_rows_are_taken_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(record.FOLDER, str(tmp_path))
    rows = [record.Row(name=name, figure=(1.0,), unit="s") for name in ("probe/a", "probe/b", "store/c")]
    record.merge(tmp_path / "figures-trial.json", rows)
    assert write_tables.take("coverage/") == 0
    assert not (tmp_path / "figures.json").exists()
    assert write_tables.take("probe/") == 2
    assert sorted(record.read(tmp_path / "figures.json")) == ["probe/a", "probe/b"]
    assert sorted(record.read(tmp_path / "figures-trial.json")) == ["store/c"]
    assert write_tables.take("store/") == 1
    assert record.read(tmp_path / "figures-trial.json") == {}


def test_a_simulation_may_run_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(record.FOLDER, str(tmp_path))
    monkeypatch.setattr(record, "busy_cores", lambda: 1.5)
    run = recorder()
    run.add("zarr/read", [0.1, 0.2])
    assert run.write().name == "figures.json"


def test_shares_of_cases() -> None:
    run = recorder()
    run.script = "coverage"
    run.add_shares("interval/ECE", [(1.0, 0.94, 0.06), (0.5, 0.96, 0.02), (0.4, 0.2, 0.08)])
    assert run.rows["interval/ECE/cases"][0] == (2.0,)
    assert run.rows["interval/ECE/covered"][0] == (0.94, 0.95, 0.96)
    assert run.rows["interval/ECE/wrong"][0] == (0.08,)


def test_what_is_not_a_row_is_refused() -> None:
    run = recorder()
    run.add("zarr/read", 0.1)
    with pytest.raises(KeyError, match="measured twice"):
        run.add("zarr/read", 0.1)
    with pytest.raises(KeyError, match="no row 'zarr/red'"):
        run.add("zarr/red", 0.1)
    with pytest.raises(ValueError, match="not finite"):
        record.Row(name="a", figure=(float("nan"),), unit="s")
    with pytest.raises(ValueError, match="neither a figure nor a detail"):
        record.Row(name="a", figure=(), unit="s")
    with pytest.raises(ValueError, match="not like"):
        record.Row(name="a", figure=(1.0,), unit="s", mark="20 times")
    with pytest.raises(ValueError, match="Invalid isoformat"):
        record.Row(name="a", figure=(1.0,), unit="s", date="25 November")


@pytest.mark.parametrize(
    ("figure", "ratio", "mark", "asked", "verdict"),
    [
        (0.25, 22.3, ">= 20", "at least 20", "met"),
        (50.0, 19.9, ">= 20", "at least 20", "missed"),
        (1.15, None, "<= 1.15", "at most 1.15", "met"),
        (5.0, None, "< 5", "under 5", "missed"),
        (2000.0, None, "> 1000", "over 1,000", "met"),
        (1.0, None, "flat", "flat", ""),
    ],
)
def test_marks(figure: float, ratio: float | None, mark: str, asked: str, verdict: str) -> None:
    row = record.Row(name="a", figure=(figure,), unit="s", ratio=ratio, mark=mark)
    assert (row.asked, row.verdict) == (asked, verdict)


def test_formats_of_figures() -> None:
    row = record.Row(name="a", figure=(0.0, 1.3e-4), unit="s", detail="of two")
    assert f"{row:.1e}{row.aside}" == "0, 1.3e-4 (of two)"
    assert f"{record.Row(name='a', figure=(), unit='s', detail='no p-value'):.3f}" == "no p-value"
    assert str(record.Machine()) == "machine not recorded"
    assert str(record.Machine("AMD", 2, other="torch 2")) == "AMD, 2 cores, torch 2; Python and numpy not recorded"


def test_cores_in_use_are_read_from_the_counters() -> None:
    cores = "cpu0 0\ncpu1 0\n"
    before = f"cpu 100 0 50 1000 10 0 0 0 0 0\n{cores}"
    assert record.cores_between(before, f"cpu 150 0 50 1050 10 0 0 0 0 0\n{cores}") == 1.0
    assert record.cores_between(before, f"cpu 100 0 50 1090 20 0 0 0 0 0\n{cores}") == 0.0
    assert record.cores_between(before, before) == 0.0


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("probe", ["--rows", "200", "--classes", "5", "--width", "8", "--runs", "1"]),
        ("store", ["--rows", "200", "--classes", "10", "--stores", "3"]),
    ],
)
def test_a_small_run_writes_every_declared_row_apart(script: str, words: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, record.FOLDER: str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *words]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    rows = record.read(tmp_path / "figures-trial.json")
    assert sorted(rows) == sorted(f"{script}/{name}" for name in DECLARED[script])
    assert {row.command for row in rows.values()} == {f"python benchmarks/{script}.py {' '.join(words)}"}
    assert [file.name for file in tmp_path.iterdir()] == ["figures-trial.json"]
