"""Published tables become result rows: their numbers as fractions, intervals from the number of images, no
guesses."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from statsmodels.stats.proportion import proportion_confint

from analyze.cli import main
from analyze.results import read_results, write_results
from analyze.results.published import join_published, read_published
from analyze.results.quantities import values
from closerlook_common.errors import UserError

TIMM = """model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation
big_vit.clip_laion2b_ft_in12k_in1k,224,88.5,11.5,98.2,1.8,"1,013.01",1.000,bicubic
resnet50.a1_in1k,224,80.0,20.0,95.0,5.0,25.56,0.950,bicubic
resnet50.a1_in1k,288,81.0,19.0,95.5,4.5,25.56,1.000,bicubic
vit_s.fb_in22k_ft_in1k,224,82.0,18.0,96.0,4.0,22.0,1.000,bicubic
vit_b.openai_ft_in1k,224,84.0,16.0,97.0,3.0,86.0,1.000,bicubic
vit_b.mae,224,0.0,100.0,100.0,0.0,86.0,1.000,bicubic
strange,224,70.0,30.0,90.0,10.0,5.0,1.000,bicubic
"""
OPEN_CLIP = """name,pretrained,params (M),FLOPs (B),ImageNet 1k,ImageNet v2,ImageNet-O,ImageNet-A
ViT-B-32,laion2b_s34b_b79k,151.28,14.78,0.6656,0.5811,0.5,0.2626
RN50,openai,102.01,18.18,0.5982,0.5286,0.5,0.2275
"""


@pytest.fixture
def timm_file(tmp_path: Path) -> Path:
    path = tmp_path / "results-imagenet.csv"
    path.write_text(TIMM)
    return path


def test_timm_rows(timm_file: Path) -> None:
    rows = read_published(timm_file)
    top1 = rows.filter(pl.col("metric") == "top1")
    assert dict(top1.select("model", "value").rows()) == pytest.approx(
        {
            "big_vit.clip_laion2b_ft_in12k_in1k": 0.885,
            "resnet50.a1_in1k@224": 0.80,
            "resnet50.a1_in1k@288": 0.81,
            "vit_s.fb_in22k_ft_in1k": 0.82,
            "vit_b.openai_ft_in1k": 0.84,
            "vit_b.mae": 0.0,
            "strange": 0.7,
        }
    )
    assert dict(top1.select("model", "group").rows()) == {
        "big_vit.clip_laion2b_ft_in12k_in1k": "clip-ft-in12k",
        "resnet50.a1_in1k@224": "supervised-in1k",
        "resnet50.a1_in1k@288": "supervised-in1k",
        "vit_s.fb_in22k_ft_in1k": "more-data",
        "vit_b.openai_ft_in1k": "clip-ft-in1k",
        "vit_b.mae": "self-supervised",
        "strange": "unknown",
    }
    assert dict(top1.select("model", "source").rows())["big_vit.clip_laion2b_ft_in12k_in1k"] == "laion-2b"
    assert top1["parameters"][0] == 1_013_010_000
    assert set(rows["dataset"]) == {"imagenet-val"}
    assert set(rows["role"]) == {"id"}
    assert set(rows["store"]) == {"published:results-imagenet.csv"}
    assert set(rows["metric"]) == {"top1", "top5"}


def test_intervals_are_clopper_pearsons(timm_file: Path) -> None:
    for value, low, high, n in read_published(timm_file).select("value", "low", "high", "n").rows():
        assert (low, high) == pytest.approx(proportion_confint(round(value * n), n, method="beta"))


@pytest.mark.parametrize(
    ("name", "dataset", "subset", "n"),
    [
        ("results-imagenetv2-matched-frequency", "imagenet-v2-b", "", 10_000),
        ("results-sketch", "imagenet-sketch", "", 50_889),
        ("results-imagenet-a", "imagenet-a", "", 7_500),
        ("results-imagenet-a-clean", "imagenet-val", "classes:imagenet-a", 10_000),
        ("results-imagenet-real", "imagenet-real", "", 46_837),
    ],
)
def test_timm_file_names_tell_the_dataset(tmp_path: Path, name: str, dataset: str, subset: str, n: int) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(TIMM)
    row = read_published(path).row(0, named=True)
    assert (row["dataset"], row["subset"], row["n"]) == (dataset, subset, n)


def test_open_clip_rows_leave_imagenet_o_out(tmp_path: Path) -> None:
    path = tmp_path / "openclip_results.csv"
    path.write_text(OPEN_CLIP)
    rows = read_published(path)
    assert set(rows["dataset"]) == {"imagenet-val", "imagenet-v2-b", "imagenet-a"}
    row = rows.filter(pl.col("model") == "RN50/openai", pl.col("dataset") == "imagenet-a").row(0, named=True)
    assert (row["value"], row["group"], row["source"], row["parameters"]) == (
        0.2275,
        "clip-zero-shot",
        "wit",
        102_010_000,
    )


def test_plain_tables_are_never_guessed_to_be_percent(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("model,dataset,accuracy,group\na,imagenet-val,76.1,supervised-in1k\nb,imagenet-val,0.5,\n")
    with pytest.raises(UserError, match="use `percent`"):
        read_published(path)
    rows = read_published(path, percent=True)
    assert rows["value"].to_list() == pytest.approx([0.761, 0.005])
    assert rows["group"].to_list() == ["supervised-in1k", "unknown"]
    assert rows["low"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("text", "stated"), [("a,b\n1,2\n", "not a table that is known"), ("model,accuracy\na,0.5\n", "`dataset`")]
)
def test_unknown_tables_say_what_is_needed(tmp_path: Path, text: str, stated: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=stated):
        read_published(path)


def test_a_timm_file_of_another_name_needs_its_dataset(tmp_path: Path) -> None:
    path = tmp_path / "results-imagnet.csv"
    path.write_text(TIMM)
    with pytest.raises(UserError, match="did you mean results-imagenet"):
        read_published(path)
    assert set(read_published(path, dataset="mine")["dataset"]) == {"mine"}


def test_measured_numbers_come_before_published_ones(results: pl.DataFrame, tmp_path: Path) -> None:
    model, measured = values(results, "top1@imagenet-val").select("model", "value").row(0)
    path = tmp_path / "mine.csv"
    path.write_text(f"model,dataset,accuracy\n{model},imagenet-val,0.123\nnew,imagenet-val,0.4\n")
    published = read_published(path)
    joined, clashes = join_published(results, published)
    assert clashes == 1
    number = dict(values(joined, "top1@imagenet-val").select("model", "value").rows())
    assert number[model] == measured
    assert number["new"] == 0.4
    both, _ = join_published(results, published, both=True)
    number = dict(values(both, "top1@imagenet-val").select("model", "value").rows())
    assert (number[model], number[f"{model} (published)"]) == (measured, 0.123)


def test_command_joins_files(
    results: pl.DataFrame, timm_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "openclip_results.csv"
    other.write_text(OPEN_CLIP)
    source = write_results(results, tmp_path / "r.parquet")
    out = tmp_path / "joined.parquet"
    assert main(["import-results", str(timm_file), str(other), "--join", str(source), "-o", str(out)]) == 0
    assert len(values(read_results(out), "top1@imagenet-val")) == 36 + 7 + 2
    assert main(["import-results", str(timm_file), str(timm_file), "-o", str(out)]) == 2
    assert "two of the files" in capsys.readouterr().err
    before = source.read_bytes()
    assert main(["import-results", str(timm_file), "-o", str(source)]) == 2  # nobody's own numbers are lost
    assert f"would replace: --join {source} keeps them" in capsys.readouterr().err
    assert source.read_bytes() == before
    alone = tmp_path / "published.parquet"
    assert [main(["import-results", str(timm_file), "-o", str(alone)]) for _ in range(2)] == [0, 0]


def test_cards_are_those_that_extract_gives(tmp_path: Path) -> None:
    """One set of rules: a published model and one that was run here stand in the same group."""
    from cache_schema.format.model_names.card_fields import derive

    names = [
        "regnety_320.seer_ft_in1k", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "hgnet_tiny.ssld_in1k",
        "beitv2_base_patch16_224.in1k_ft_in1k", "hiera_base_224.mae_in1k_ft_in1k",
        "eva02_base_patch14_448.mim_in22k_ft_in1k",
        "vit_base_patch16_clip_224.dfn2b_ft_in1k", "resnet50.a1_in1k",
    ]  # fmt: skip
    path = tmp_path / "results-imagenet.csv"
    path.write_text("model,img_size,top1,top5,param_count\n" + "".join(f"{name},224,80.1,95.2,1.5\n" for name in names))
    for row in read_published(path).filter(metric="top1").iter_rows(named=True):
        known = derive("timm", row["model"])
        assert {key: row[key] for key in ("group", "source", "family")} == {
            key: known[key] for key in ("group", "source", "family")
        }


def with_commas(text: str) -> str:
    """As a spreadsheet in a language with decimal commas saves a table."""
    unquoted = re.sub(r'"([^"]*)"', lambda found: found[1].replace(",", ""), text)
    return unquoted.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize("name", ["results-imagenet.csv", "openclip_results.csv", "own.csv"])
def test_tables_with_decimal_commas_give_the_same_rows(tmp_path: Path, name: str) -> None:
    text = {"own.csv": "model,dataset,accuracy\na,x,0.75\nb,x,1\n", "results-imagenet.csv": TIMM}.get(name, OPEN_CLIP)
    text = re.sub(r"(?m)^([^,\n]*)", lambda found: found[1].replace(".", "-"), text)  # points of model names
    rows = []
    for written in (text, with_commas(text)):
        (tmp_path / name).write_text(written)
        rows.append(read_published(tmp_path / name))
    assert rows[0].equals(rows[1])
    assert rows[0]["value"].null_count() == 0


def test_a_result_table_saved_with_decimal_commas(tmp_path: Path, results: pl.DataFrame) -> None:
    write_results(results.head(40), tmp_path / "r.csv")
    table = pl.read_csv(tmp_path / "r.csv", infer_schema=False)
    own = table.with_columns(pl.col("value", "low", "high").str.replace(".", ",", literal=True))
    own.write_csv(tmp_path / "commas.csv", separator=";")
    assert read_results(tmp_path / "commas.csv").equals(read_results(tmp_path / "r.csv"))


@pytest.mark.parametrize("cell", ["82 %", "eighty", "1.234,5"])
def test_what_is_no_number_is_named(tmp_path: Path, cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (
        ("results-imagenet.csv", f'model,img_size,top1,top5,param_count\na,224,"{cell}",90.0,5\n'),
        ("own.csv", f'model,dataset,accuracy\na,x,"{cell}"\n'),
        ("results.csv", f'name,pretrained,params (M),ImageNet 1k\na,b,5,"{cell}"\n'),
    ):
        (tmp_path / name).write_text(text)
        assert main(["import-results", str(tmp_path / name), "-o", str(tmp_path / "out.parquet")]) == 2
        err = capsys.readouterr().err
        assert name in err
        assert cell in err
        assert "Traceback" not in err


def test_a_table_of_another_layout_is_one_line(timm_file: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("model,top1\na,80\n")
    for path, layout in ((timm_file, "open_clip"), (tmp_path / "few.csv", "timm"), (timm_file, "csv")):
        with pytest.raises(UserError) as caught:
            read_published(path, layout=layout, dataset="x")
        assert "\n" not in str(caught.value)
