"""What ``analyze table`` calls variants and means, what it says of missing values, and that LaTeX takes its tables."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from analyze.results import ResultRow, to_frame
from analyze.tables import build_tables
from analyze.tables.writers import page_title, print_tables, to_latex


def row(model: str, metric: str, value: float | None, **more: object) -> ResultRow:
    return ResultRow(model=model, dataset=more.pop("dataset", "d"), metric=metric, value=value, **more)  # type: ignore[arg-type]


def test_options_are_words_and_stay_apart() -> None:
    options = {
        "gen": '{"gamma":0.1,"m":100}', "knn": '{"fit":"bank:train","full_spectrum":["a","b"],"half":false,"k":50}',
    }  # fmt: skip
    rows = [row("one", "auroc", 0.5 + i / 10, score=s, options=o) for i, (s, o) in enumerate(options.items())]
    (page,) = build_tables(to_frame(rows))
    assert [c.name for c in page.columns] == [
        "auroc [gen, gamma=0.1, m=100]", "auroc [knn, fit=bank:train, full spectrum, k=50]",
    ]  # fmt: skip
    assert page.columns[1].title == "AUROC (kNN, fit=bank:train, full spectrum, k=50)"
    # Two lists of datasets are one word; then the options stand as they are stored, and no number is lost.
    rows = [row("one", "auroc", v, score="gen", options=f'{{"full_spectrum":["{v}"]}}') for v in (0.1, 0.2)]
    (page,) = build_tables(to_frame(rows))
    assert len(page.to_frame().columns) == 1 + 2


def test_a_number_of_several_datasets_is_called_a_mean() -> None:
    rows = [row("one", "auroc", 0.6, dataset="textures", score="msp")]
    rows += [row("one", "auroc", 0.7, dataset="", subset=subset, score="msp") for subset in ("near", "all")]
    (page,) = build_tables(to_frame(rows), columns=["dataset"])
    assert [c.name for c in page.columns] == ["textures", "mean [near OOD]", "mean [all OOD]"]
    assert page.columns[1].title == "Mean (near OOD)"
    assert [page_title(page.page) for page in build_tables(to_frame(rows))] == ["Textures", "Means over datasets"]


def test_reasons_below_a_table_are_those_of_its_columns_and_few() -> None:
    rows = [row("one", "top1", 0.5), row("one", "top5", None, reason="only 4 classes")]
    rows += [row(f"m{i}", "top1", None, reason=f"reason {i}") for i in range(20)]
    rows += [row("one", f"metric{i:02}", None, reason="far to the right") for i in range(30)]
    out = io.StringIO()
    print_tables(build_tables(to_frame(rows)), Console(file=out, width=80))
    parts = [line for line in out.getvalue().splitlines() if line.startswith("–")]
    assert len(parts) == 7
    assert parts[-1].endswith("more reasons in the column 'reason' of the result table.")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_whatever_models_are_called(tmp_path: Path) -> None:
    hostile = ["vit_b&100%#1", "a{b}c\\d", "x~y^z$", '"q" <r> |s|', "naïve é ü ß"]
    rows = [row(name, metric, 0.1 * (i + 1), low=0.05, high=0.6) for i, name in enumerate(hostile)
            for metric in ("top1", "ece", "coverage_at_risk1")]  # fmt: skip
    rows += [row(name, "auroc", 0.5, score="gen", options='{"gamma":0.1,"m":100}') for name in hostile]
    pages = build_tables(to_frame(rows), best=True, intervals=True, group_rows="group")
    (tmp_path / "t.tex").write_text(to_latex(pages), encoding="utf-8")
    (tmp_path / "d.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\IfFileExists{booktabs.sty}{\\usepackage{booktabs}}"
        # The smallest installation has no booktabs; what a table takes of it is three rules and a part of one.
        "{\\let\\toprule\\hline\\let\\midrule\\hline\\let\\bottomrule\\hline\\def\\cmidrule(##1)##2{\\cline{##2}}}"
        "\\begin{document}\\input{t}\\end{document}"
    )
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("width", [80, 120])
def test_factors_of_many_models_stay_readable(width: int) -> None:
    from analyze.tables.factors import factor_table

    factors = [f"some_factor_{i}" for i in range(10)]
    models = [f"a-model-of-some-length-{i}" for i in range(5)]
    rows = [row(m, "factor_accuracy", 0.5 + i / 100, factor=f, n=40) for m in models for i, f in enumerate(factors)]
    rows += [row(m, "top1", 0.5, subset="annotated", n=400) for m in models]
    out = io.StringIO()
    for part in factor_table(to_frame(rows), width=width):
        Console(file=out, width=width).print(part)
    text = out.getvalue()
    assert "…" not in text
    words = text.split()
    assert all(words.count(f) == 1 for f in factors)
    pieces = words.count("model")
    assert pieces > 1
    assert all(words.count(m) == pieces for m in models)
    assert all(words.count(f"{50 + i}.0") == 5 for i in range(1, 10))


def test_plain_shows_each_number_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analyze.cli import main
    from analyze.results import write_results

    rows = [row("one", "ece", 0.1), row("one", "auroc", 0.6, dataset="far", score="msp")]
    rows += [row("one", "ece", 0.2, **{name: "x"}) for name in ("calibrator", "subset", "factor")]
    rows += [row("one", "ece", 0.3, options='{"a":1}'), row("one", "auroc", 0.7, dataset="", subset="all", score="msp")]
    rows += [row("one", "auroc", 0.8, dataset="far", score="knn", options='{"k":50}')]
    path = write_results(to_frame(rows), tmp_path / "r.parquet")
    words = ["table", str(path), "--columns", "dataset,metric", "--csv", "-"]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()[0].split(",")) > 8
    assert main([*words, "--plain"]) == 0
    head, numbers = capsys.readouterr().out.splitlines()
    assert sorted(numbers.split(",")[1:]) == ["0.1", "0.6", "0.7", "0.8"]
    assert "d ece" in head
    assert main([*words, "--plain", "--where", "metric=ece", "--where", "calibrator=,x"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()[1].split(",")[1:]) == ["0.1", "0.2"]


def test_latex_headings_in_two_lines() -> None:
    rows = [row("one", metric, 0.5, dataset=d) for d in ("imagenet-a", "sun") for metric in ("top1", "ece")]
    text = to_latex(build_tables(to_frame(rows), columns=["dataset", "metric"])[:1])
    lines = [line for line in text.splitlines() if "&" in line or "cmidrule" in line]
    assert lines[0] == r"& \multicolumn{2}{c}{ImageNet-A} & \multicolumn{2}{c}{SUN} \\"
    assert lines[1] == r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}"
    assert lines[2].startswith("model & Top-1 accuracy $\\uparrow$ & ECE")
    (page,) = build_tables(to_frame(rows), columns=["dataset", "metric"])
    assert lines[3].count("&") == len(page.columns)
    # One metric: nothing to share.
    assert "multicolumn" not in to_latex(build_tables(to_frame(rows[::2]), columns=["dataset", "metric"]))
