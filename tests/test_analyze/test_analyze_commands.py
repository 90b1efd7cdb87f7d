"""The commands as a person types them: metrics, show, compare, summarize, factors."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from analyze.annotations import FACTORS, of_metadata, read_annotations
from analyze.annotations.visual_factors import image_key
from analyze.cli import main
from analyze.results import read_results
from cache_schema import ModelCard
from closerlook_common.errors import UserError


@pytest.fixture
def study(toy_store, tmp_path):
    """Two models on an ID set with factor columns, a shift, an OOD set and a cue-conflict set."""
    root = tmp_path / "cache"
    rng = np.random.default_rng(0)
    top = np.array(["pose", "background", "color", ""], dtype=object)[np.arange(200) % 4]
    factors = {name: (top == name).astype(np.int64) for name in FACTORS[:4]}
    factors["pattern"][::2] = 1
    metadata = {**factors, "top_factor": top, "prototype": (np.arange(200) < 20).astype(np.int64)}
    names = ("cat", "dog", "car", "cup")
    shape = rng.integers(0, 4, 80)
    texture = (shape + rng.integers(0, 4, 80)) % 4
    for seed, model in enumerate(("one", "two")):
        toy_store(cache=root, model=model, seed=seed, metadata=metadata)
        toy_store(cache=root, model=model, seed=seed, dataset="far", role="ood", n=60, card={"distance": "far"})
        toy_store(
            cache=root,
            model=model,
            seed=seed,
            dataset="cue",
            role="shift",
            n=80,
            n_classes=4,
            labels=shape,
            card={"class_names": names},
            metadata={"shape": [names[s] for s in shape], "texture": [names[t] for t in texture]},
        )
    return root


def test_metrics_writes_a_table_and_computes_it_once(study, tmp_path, capsys):
    out = tmp_path / "results" / "r.parquet"
    assert main(["metrics", str(study), "-o", str(out)]) == 0
    assert "0 unchanged" in capsys.readouterr().err
    first = read_results(out)
    assert set(first["model"]) == {"one", "two"}
    assert main(["metrics", str(study), "-o", str(out)]) == 0
    assert ": 0 cells computed" in capsys.readouterr().err
    assert read_results(out).equals(first)
    assert main(["metrics", str(study), "-o", str(out), "--only", "top1", "--models", "tw*", "--datasets", "val"]) == 0
    some = read_results(out)
    assert (set(some["metric"]), set(some["model"]), set(some["dataset"])) == ({"top1"}, {"two"}, {"val"})
    # What was left out is still known.
    assert main(["metrics", str(study), "-o", str(out)]) == 0
    assert read_results(out).equals(first)
    assert main(["metrics", str(study), "-o", str(out), "--fresh"]) == 0
    assert read_results(out).equals(first)


def test_metrics_takes_a_config_and_a_bootstrap(study, tmp_path):
    config = tmp_path / "analysis.toml"
    config.write_text('[accuracy]\ninterval = "clopper-pearson"\n[split]\nfraction = 0.2\n')
    out = tmp_path / "r.parquet"
    words = ["--config", str(config), "--bootstrap", "50", "--only", "top1,temperature,ece,auroc"]
    assert main(["metrics", str(study), "-o", str(out), *words]) == 0
    table = read_results(out)
    assert table.filter(pl.col("metric") == "top1", pl.col("subset") == "")["options"].str.contains("clopper").all()
    # A fifth of every class, whose odd rows are rounded by chance.
    assert table.filter(pl.col("metric") == "temperature")["n"].is_between(35, 45).all()
    means = table.filter(pl.col("metric") == "auroc", pl.col("subset") == "all", pl.col("value").is_not_null())
    # As many rows as these sets have are too few for the interval of a mean over sets, with a bootstrap too.
    assert means["interval"].str.contains("60 rows on one side").all()


def test_bad_words_are_answered_in_one_line(study, tmp_path, capsys):
    for words, printed in (
        (["metrics", str(study / "nowhere")], "no cache"),
        (["metrics", str(study), "--only", "tpo1"], "did you mean top1"),
        (["metrics", str(study), "--config", str(tmp_path / "x.toml")], "no such file"),
        (["show", str(study), "onne"], "did you mean one"),
        (["compare", str(study), "one", "tow"], "did you mean two"),
        (["compare", str(study), "one", "one"], "two different models"),
        (["factors", str(study), "--annotations", str(tmp_path / "a.jsonl")], "no annotations at"),
    ):
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert printed in err
        assert "Traceback" not in err


def test_show_prints_the_card_and_the_numbers(study, capsys):
    assert main(["show", str(study), "one"]) == 0
    text = capsys.readouterr().out
    for words in ("supervised IN-1k", "accuracy and calibration", "OOD detection", "by factor", "shape bias"):
        assert words in text


def test_compare_pairs_the_images(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["compare", str(study), "one", "two", "--bootstrap", "50"]) == 0
    text = capsys.readouterr().out
    assert "error consistency" in text
    assert "mean probability" in text


def test_compare_numbers_equal_numpy(study):
    import cache_schema
    from analyze.evaluate.compare import compare_models
    from analyze.settings import study_defaults

    cache = cache_schema.open_cache(study)
    found, problems = compare_models(cache, ["one", "two"], settings=study_defaults(), datasets=["val"], replicates=50)
    assert problems == {}
    stores = [cache.store(name, "val") for name in ("one", "two")]
    p = []
    for store in stores:
        e = np.exp(store.logits().astype(np.float64))
        p.append(e / e.sum(axis=1, keepdims=True))
    y = stores[0].labels
    right = [q.argmax(axis=1) == y for q in p]
    (comparison,) = found
    assert comparison.differences["top1"].difference == pytest.approx(right[0].mean() - right[1].mean())
    assert comparison.agreement[0, 1] == (p[0].argmax(axis=1) == p[1].argmax(axis=1)).mean()
    mean = (p[0] + p[1]) / 2
    assert comparison.ensemble["top1"] == (mean.argmax(axis=1) == y).mean()
    assert comparison.ensemble["nll"] == pytest.approx(-np.log(mean[np.arange(200), y]).mean(), rel=1e-5)


def test_compare_refuses_other_images_and_other_labels(toy_store, tmp_path):
    import cache_schema
    from analyze.evaluate.compare import compare_models
    from analyze.settings import study_defaults

    root = tmp_path / "c"
    toy_store(cache=root, model="a")
    toy_store(cache=root, model="b", labels=(np.arange(200) * 7) % 10)
    toy_store(cache=root, model="a", dataset="d", n=50)
    toy_store(cache=root, model="b", dataset="d", n=60)
    found, problems = compare_models(cache_schema.open_cache(root), ["a", "b"], settings=study_defaults())
    assert found == []
    assert "labels" in problems["val"]
    assert "other images" in problems["d"]


def test_summarize_then_metrics_on_a_laptop(study, tmp_path, capsys):
    small = tmp_path / "small"
    assert main(["summarize", str(study), "--to", str(small)]) == 0
    assert main(["summarize", str(study), "--to", str(small)]) == 0
    assert "0 summaries written" in capsys.readouterr().err
    big, light = tmp_path / "big.parquet", tmp_path / "light.parquet"
    assert main(["metrics", str(study), "-o", str(big)]) == 0
    assert main(["metrics", str(small), "-o", str(light)]) == 0
    keys = ["model", "dataset", "metric", "id_dataset", "score", "calibrator", "subset", "factor", "options"]
    assert read_results(light).sort(keys).equals(read_results(big).sort(keys))
    assert main(["compare", str(small), "one", "two", "--bootstrap", "20"]) == 0
    assert "needs all probabilities" in capsys.readouterr().out


def test_factors_join_the_other_numbers_of_a_table(study, tmp_path):
    out = tmp_path / "r.parquet"
    assert main(["metrics", str(study), "-o", str(out), "--only", "top1,ece"]) == 0
    before = read_results(out).filter(pl.col("subset") == "")
    for _ in range(2):
        assert main(["factors", str(study), "-o", str(out)]) == 0
        after = read_results(out)
        assert after.filter(pl.col("metric") == "factor_accuracy").height > 0
        assert after.join(before, on=before.columns, how="semi", nulls_equal=True).height == before.height


def expected_factors(study, keep, labels="top"):
    import cache_schema

    store = cache_schema.open_cache(study).store("one", "val")
    right = store.logits().argmax(axis=1) == store.labels
    use = np.ones(200, bool) if keep else np.arange(200) >= 20
    given = {}
    for name in FACTORS[:4]:
        member = store.metadata["top_factor"] == name if labels == "top" else store.metadata[name] == 1
        rows = use & np.asarray(member)
        if rows.any():
            given[name] = (right[rows].mean(), rows.sum(), (1 - right[rows].mean()) / (1 - right[use].mean()))
    return given


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("labels", ["top", "multi"])
def test_factors_of_the_datasets_own_columns(study, tmp_path, keep, labels, capsys):
    out = tmp_path / "f.parquet"
    words = ["--keep-prototypes"] if keep else []
    assert main(["factors", str(study), "-o", str(out), "--factor-labels", labels, *words]) == 0
    assert "accuracy by factor" in capsys.readouterr().out
    table = read_results(out).filter(pl.col("model") == "one", pl.col("dataset") == "val")
    want = expected_factors(study, keep, labels)
    found = table.filter(pl.col("metric") == "factor_accuracy")
    assert set(found["factor"]) == set(want)
    for row in found.iter_rows(named=True):
        assert (row["value"], row["n"]) == pytest.approx(want[row["factor"]][:2])
        assert row["low"] < row["value"] <= row["high"]
    for row in table.filter(pl.col("metric") == "error_ratio").iter_rows(named=True):
        assert row["value"] == pytest.approx(want[row["factor"]][2])


def test_factors_joined_by_file_name(study, tmp_path):
    lines = []
    for i in range(150, 250):  # some rows are not in the set, and the order is another
        given = {name: int(i % 4 == k) for k, name in enumerate(FACTORS[:4])}
        lines.append(json.dumps({"file_name": f"{349 - i if 349 - i > 149 else i:06d}.jpg", **given}))
    path = tmp_path / "annotations.jsonl"
    path.write_text("\n".join(lines))
    out = tmp_path / "f.parquet"
    words = ["--annotations", str(path), "--factor-labels", "multi", "-o", str(out)]
    assert main(["factors", str(study), *words]) == 0
    import cache_schema

    store = cache_schema.open_cache(study).store("one", "val")
    right = store.logits().argmax(axis=1) == store.labels
    rows = [k for i in range(150, 250) if i % 4 == 1 and (k := 349 - i if 349 - i > 149 else i) < 200]
    found = read_results(out).filter(
        pl.col("model") == "one", pl.col("metric") == "factor_accuracy", pl.col("factor") == FACTORS[1]
    )
    assert found["value"][0] == pytest.approx(right[rows].mean())
    assert found["n"][0] == len(rows)


def test_factors_of_a_plain_column(study, tmp_path):
    out = tmp_path / "f.parquet"
    assert main(["factors", str(study), "--columns", "texture", "--datasets", "cue", "-o", str(out)]) == 0
    assert "texture=cat" in set(read_results(out)["factor"])


def test_factors_say_what_is_missing(study, tmp_path, capsys):
    assert main(["factors", str(study), "--columns", "textur"]) == 2
    assert "did you mean texture" in capsys.readouterr().err
    path = tmp_path / "elsewhere.jsonl"
    path.write_text('{"file_name": "other.jpg", "pose": 1}')
    assert main(["factors", str(study), "--annotations", str(path), "--factor-labels", "multi"]) == 1
    printed = capsys.readouterr()
    assert "none of the 200 images is annotated" in printed.err
    assert printed.out == ""
    # One model is a table of factors with their intervals, and says when it is calibrated.
    assert main(["factors", str(study), "--models", "one", "-o", str(tmp_path / "f.parquet")]) == 0
    assert "overall" in capsys.readouterr().out
    table = read_results(tmp_path / "f.parquet").filter(pl.col("metric") == "nll", pl.col("calibrator") != "")
    assert table["value"].is_not_null().all()


def test_factors_without_annotations_say_what_to_give(toy_store, tmp_path, capsys):
    toy_store(cache=tmp_path / "c")
    assert main(["factors", str(tmp_path / "c")]) == 2
    assert "--annotations imagenet-x" in capsys.readouterr().err


def test_shape_bias_of_a_cue_conflict_set(study, tmp_path):
    import cache_schema

    out = tmp_path / "r.parquet"
    assert main(["metrics", str(study), "--only", "shape-bias", "-o", str(out)]) == 0
    store = cache_schema.open_cache(study).store("two", "cue")
    names = np.array(["cat", "dog", "car", "cup"], dtype=object)
    predicted = names[store.logits().argmax(axis=1)]
    shape, texture = store.metadata["shape"], store.metadata["texture"]
    conflict = shape != texture
    for_shape = (predicted == shape)[conflict].sum()
    for_texture = (predicted == texture)[conflict].sum()
    found = read_results(out).filter(
        pl.col("model") == "two", pl.col("metric") == "shape_bias", pl.col("factor") == "", pl.col("dataset") == "cue"
    )
    assert found["value"][0] == pytest.approx(for_shape / (for_shape + for_texture))
    assert found["n"][0] == for_shape + for_texture


def test_annotations_are_checked(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, words in (
        ("", "holds no annotation"),
        ("{", "line 1: not JSON"),
        ('{"pose": 1}', "line 1: an annotation needs"),
        ('{"file_name": "a"}', "no factor is named"),
        ('{"file_name": "a", "pose": 1}\n{"file_name": "b"}', "lacks a factor"),
        ('{"file_name": "a", "pose": 1}\n{"file_name": "x/a", "pose": 1}', "annotated twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_annotations(str(path), labels="multi")
    path.write_bytes("image_id,pose\na,1\n".encode("utf-16"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_annotations(str(path), labels="multi")
    path.write_text("image_id,pose\na,1\n")
    with pytest.raises(UserError, match="annotations are JSON lines, one object an image with its 'file_name'"):
        read_annotations(str(path), labels="multi")
    path.write_bytes(b'\xef\xbb\xbf{"file_name": "a\xe2\x80\xa8b", "pose": 1}\r\n')
    assert read_annotations(str(path), labels="multi").keys.tolist() == [image_key("a\u2028b")]
    path.write_text('{"file_name": "a", "pose": 1}')
    with pytest.raises(UserError, match="ask for the multi labels"):
        read_annotations(str(path))
    with pytest.raises(UserError, match="holds no imagenet_x_val"):
        read_annotations(str(tmp_path))
    assert of_metadata({"shape": np.array(["cat"], dtype=object)}) is None


def test_imagenet_x_has_the_published_counts():
    """The package's own files: images by factor, as the study's facts state them."""
    pytest.importorskip("imagenet_x", reason="the extra imagenet-x is not installed")
    top = read_annotations("imagenet-x")
    assert len(top.keys) == 48_868
    kept = ~top.prototype
    assert kept.sum() == 46_110
    counts = {name: int(values[kept].sum()) for name, values in top.members.items()}
    parts = [counts[name] for name in ("pose", "background", "larger", "multiple_objects")]
    assert parts == [15_064, 14_751, 150, 40]
    multi = read_annotations("imagenet-x", labels="multi")
    assert int(multi.members["pose"][~multi.prototype].sum()) == 39_974
    assert top.metaclass is not None
    assert np.unique(top.metaclass).size == 17
    assert len(top.real_labels) == 50_000


@pytest.mark.parametrize("command", ["metrics", "show", "compare", "summarize", "factors"])
def test_help_is_light(command):
    code = (
        "import sys\nfrom analyze.cli import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'numba', 'polars', 'zarr', 'scipy', 'matplotlib', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: analyze" in done.stdout


@pytest.mark.parametrize("width", [80, 90, 100, 160])
def test_a_model_page_loses_no_digit_from_80_columns_on(width):
    import io

    from rich.console import Console

    from analyze.results import ResultRow, to_frame
    from analyze.tables.model_page import model_page

    scores = ("msp", "mls", "energy", "entropy", "variance", "gen", "margin", "tempscale", "mcm", "klm")
    rows = [
        ResultRow(model="m", dataset="inaturalist", metric=metric, value=0.1234 + 0.05 * i, role="ood",
                  id_dataset="imagenet-val", score=score)
        for metric in ("auroc", "fpr95_id") for i, score in enumerate(scores)
    ]  # fmt: skip
    rows += [
        ResultRow(model="m", dataset=d, metric="top1", value=0.7654, low=0.7, high=0.8, n=50_000, role=role)
        for d, role in (("imagenet-vid-robust", "shift"), ("imagenet-val", "id"))
    ]
    out = io.StringIO()
    for table in model_page(ModelCard(id="m"), to_frame(rows), width=width):
        Console(file=out, width=width).print(table)
    text = out.getvalue()
    assert "…" not in text
    for i in range(len(scores)):
        shown = f"{100 * (0.1234 + 0.05 * i):.1f}"
        assert text.split().count(shown) == 2, scores[i]
    assert text.index("imagenet-val ") < text.index("imagenet-vid-robust")
    assert text.count("76.5 [70.0, 80.0]") == 2


def test_a_model_page_fits_80_columns_whatever_the_names_and_scores():
    import io

    from rich.console import Console

    from analyze.results import ResultRow, to_frame
    from analyze.tables.model_page import model_page

    long = "a-dataset-of-somebody-with-a-very-long-name-indeed"
    rows = [ResultRow(model="m", dataset=long, metric=m, value=0.5, low=0.4, high=0.6, n=50_000, role="id")
            for m in ("top1", "ece", "nll")]  # fmt: skip
    rows += [
        ResultRow(model="m", dataset=f"{long}-{k}", metric="auroc", value=0.1 * i + 0.001 * k, role="ood",
                  id_dataset=long, score=f"detector-{i}", options=options)
        for i in range(9) for k in range(7) for options in ("", '{"full_spectrum":["x"]}')
    ]  # fmt: skip
    out = io.StringIO()
    for table in model_page(ModelCard(id="m", name=long), to_frame(rows), width=80):
        Console(file=out, width=80).print(table)
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.split().count(f"{10 * i + 0.1 * k:.1f}") >= 1 for i in range(9) for k in range(7))
