"""Commands that write into one result table: it can always be read, and holds what the commands would write apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.results import KEY_COLUMNS, ResultRow, merge_results, read_results, to_frame
from analyze.results.joining import all_rows, write_all
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from closerlook_common.errors import CloserlookError, UserError

CLASSES, WIDTH = 5, 8


def write_reference(root: Path, model: cache_schema.ModelCard, weight: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, 120)
    features = (weight[labels] + rng.normal(size=(120, WIDTH))).astype(np.float32)
    sums = ReferenceAccumulator(CLASSES, WIDTH, per_class=20)
    sums.update(features, features @ weight.T, labels)
    card = cache_schema.DatasetCard(id="train", role="reference", class_space="five")
    cache_schema.write_reference(
        root, model=model, dataset=card, arrays=sums.arrays(), record={"reference": dict(sums.options())}
    )


def make_cache(root: Path) -> tuple[cache_schema.ModelCard, np.ndarray]:
    """Two ID sets, of which one lacks the columns; an OOD set; features, a text head; no reference."""
    rng = np.random.default_rng(0)
    model = cache_schema.ModelCard(
        id="m", class_space="five", head_kind="zero-shot", logit_scale=5.0, group="clip-zero-shot"
    )
    weight = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    for prompts in ("openai-80", "photo-1"):
        cache_schema.write_head(
            root, model=model, class_space="five", class_names=[f"c{i}" for i in range(CLASSES)], weight=weight,
            bias=np.zeros(CLASSES, np.float32), logit_scale=5.0, normalize_features=True, prompt_set=prompts,
            affine=False, residual=0.0,
        )  # fmt: skip
    for name, role in (("first", "id"), ("second", "id"), ("far", "ood")):
        n = 60
        labels = rng.integers(0, CLASSES, n)
        features = ((role != "ood") * 2 * weight[labels] + rng.normal(size=(n, WIDTH))).astype(np.float32)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        words = {"blur": np.array(["yes", "no"], object)[labels % 2], "dark": np.array(["a", "b"], object)[labels // 3]}
        card = cache_schema.DatasetCard(id=name, role=role, class_space="five", n_classes=CLASSES)
        cache_schema.write_store(
            root, model=model, dataset=card, features=features, logits=5.0 * unit @ weight.T,
            labels=None if role == "ood" else labels, image_ids=[f"{name}/{i}.png" for i in range(n)],
            metadata=words if name == "first" else None, record={"prompt_set": "openai-80"},
        )  # fmt: skip
    return model, weight


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("one-table") / "cache"
    make_cache(root)
    return root


RUNS: dict[str, list[list[str]]] = {
    "metrics": [["--only", "top1,auroc"], ["--only", "factor_accuracy,ece"]],
    "factors": [["--columns", "blur,dark"], ["--columns", "blur,blur"]],
    "prompts": [["--only", "top1"], ["--prompts", "photo-1,photo-1", "--only", "top1,ece"]],
    "ood": [["--id", "first", "--detectors", "msp,energy"], ["--id", "second", "--detectors", "msp,msp,mls"]],
}
CHOICES = [(command, number) for command, runs in RUNS.items() for number in range(len(runs))]


@pytest.fixture(scope="module")
def apart(cache, tmp_path_factory) -> dict[tuple[str, int], pl.DataFrame]:
    """What each command writes into a file of its own."""
    folder = tmp_path_factory.mktemp("apart")
    tables = {}
    for command, number in CHOICES:
        path = folder / f"{command}-{number}.parquet"
        assert main([command, str(cache), "-o", str(path), *RUNS[command][number]]) in (0, 1)
        tables[command, number] = read_results(path)
    return tables


def shown(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(KEY_COLUMNS)


@settings(max_examples=8)
@given(order=st.lists(st.sampled_from(CHOICES), min_size=2, max_size=5))
def test_any_sequence_of_commands_gives_the_tables_of_their_own_joined(cache, apart, tmp_path_factory, order):
    path = tmp_path_factory.mktemp("together") / "r.parquet"
    kept: dict[tuple[str, int], pl.DataFrame] = {}
    for command, number in order:
        assert main([command, str(cache), "-o", str(path), *RUNS[command][number]]) in (0, 1)
        if command != "ood":  # its runs add up; a run of another command takes the place of the one before
            kept = {key: table for key, table in kept.items() if key[0] != command}
        kept[command, number] = apart[command, number]
        table = read_results(path)
        assert not table.select(pl.struct(KEY_COLUMNS).is_duplicated()).to_series().any()
        assert main(["table", str(path), "--rows", "model", "--columns", "metric"]) == 0
    wanted = write_all(pl.concat(kept.values()), path.with_name("joined.parquet"))
    assert shown(table).equals(shown(wanted))
    assert shown(all_rows(path)).sort("command").select(KEY_COLUMNS).height >= wanted.height


@pytest.mark.parametrize(
    "words",
    [
        ["--detectors", "msp,energy"],
        ["--far", "far"],
        ["--near", "far"],
        ["--full-spectrum", "second"],
        ["--models", "m"],
    ],
    ids=lambda words: words[0],
)
def test_names_given_twice_count_once(cache, tmp_path, words):
    """Scores of a detector, or rows of a shifted set, that were counted twice would narrow the intervals."""
    given = ["ood", str(cache), "--id", "first", "--detectors", "msp,energy"]
    tables = []
    for times in (1, 2):
        path = tmp_path / f"{times}.parquet"
        assert main([*given, words[0], ",".join([words[1]] * times), "-o", str(path)]) == 0
        tables.append(shown(read_results(path)))
    assert tables[0]["value"].is_not_null().all()
    assert tables[0].equals(tables[1])


def test_columns_that_a_set_lacks_have_a_reason_each(cache, tmp_path, capsys):
    path = tmp_path / "r.parquet"
    main(["factors", str(cache), "--columns", "blur,dark", "-o", str(path)])
    reasons = read_results(path).filter(pl.col("dataset") == "second", pl.col("value").is_null())
    assert sorted(reasons["subset"]) == ["annotated:blur", "annotated:dark"]
    capsys.readouterr()
    assert main(["metrics", str(cache), "--only", "top1", "-o", str(path)]) == 0
    assert main(["metrics", str(cache), "--only", "ece", "-o", str(path)]) == 0
    assert "of an earlier 'analyze metrics' replaced" in capsys.readouterr().err


def row(command: str, value: float | None, **more: str) -> ResultRow:
    given = {"model": "m", "dataset": "d", "metric": "auroc", "reason": "" if value is not None else "why", **more}
    return ResultRow(value=value, command=command, **given)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_number_stands_before_a_reason_whatever_the_order(tmp_path, order):
    rows = [row("metrics", None), row("prompts", 0.4), row("factors", 0.5)]
    path = tmp_path / "r.parquet"
    for place in order:
        merge_results(to_frame([rows[place]]), path, command=rows[place].command)
    assert read_results(path)["value"].to_list() == [0.5]
    merge_results(to_frame([]), path, command="factors")
    assert read_results(path)["value"].to_list() == [0.4]
    merge_results(to_frame([]), path, command="prompts")
    assert read_results(path)["reason"].to_list() == ["why"]


def test_rows_kept_beside_another_table_are_not_taken(tmp_path):
    path = tmp_path / "r.parquet"
    merge_results(to_frame([row("metrics", 0.4)]), path, command="metrics")
    merge_results(to_frame([row("factors", 0.5)]), path, command="factors")
    path.unlink()
    merge_results(to_frame([row("metrics", 0.6, dataset="e")]), path, command="metrics")
    assert len(all_rows(path)) == 1


def test_two_rows_for_one_number_are_not_written(tmp_path):
    with pytest.raises(CloserlookError, match="two rows for one number"):
        merge_results(to_frame([row("metrics", 0.4), row("metrics", 0.5)]), tmp_path / "r.parquet", command="metrics")
    assert not (tmp_path / "r.parquet").exists()


def test_what_is_no_result_table_is_refused_before_anything_is_computed(cache, tmp_path, capsys):
    path = tmp_path / "compared.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    for words in (["metrics"], ["factors", "--columns", "blur"], ["prompts"], ["ood", "--id", "first"]):
        assert main([words[0], str(cache), "-o", str(path), *words[1:]]) == 2
        assert "is not a result table" in capsys.readouterr().err
    merge_results(to_frame([row("metrics", 0.4)]), tmp_path / "r.parquet", command="metrics")
    from analyze.tables.comparisons import check_output

    with pytest.raises(UserError, match="is a result table"):
        check_output(tmp_path / "r.parquet")


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_reference_that_comes_later_takes_the_place_of_the_reasons(tmp_path, fresh):
    root, path = tmp_path / "cache", tmp_path / "r.parquet"
    model, weight = make_cache(root)
    words = ["ood", str(root), "--id", "first", "-o", str(path)]
    main(words)
    before = read_results(path)
    assert {"knn", "mds", "klm"} <= set(before.filter(pl.col("value").is_null())["score"])
    write_reference(root, model, weight)
    main([*words, *fresh])
    after = read_results(path)
    assert after.filter(pl.col("score").is_in(["knn", "mds", "klm"]))["value"].is_not_null().all()
    own = tmp_path / "own.parquet"
    main([*words[:-1], str(own)])
    assert shown(after).equals(shown(read_results(own)))


def test_detectors_that_are_fitted_on_other_rows_are_run_again(cache, tmp_path, capsys):
    path = tmp_path / "r.parquet"
    words = ["ood", str(cache), "--id", "first", "--detectors", "klm", "-o", str(path)]
    for name, unchanged in (("second", False), ("second", True), ("second:0.5", False), ("second:0.5", True)):
        main([*words, "--validation", name])
        assert ("1 of 1 model unchanged" in capsys.readouterr().err) == unchanged, name
    assert set(read_results(path)["options"].str.extract(r'"fit":"([^"]*)"')) == {
        "validation:second", "validation:second:0.5",
    }  # fmt: skip
