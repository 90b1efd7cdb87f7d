"""A number per model by name: every row has one name, and names left open mean the study's default."""

from __future__ import annotations

import polars as pl
import pytest

from analyze.results import ResultRow, to_frame
from analyze.results.quantities import Quantity, id_dataset_of, looked_up_once, quantities, values
from closerlook_common.errors import UserError


def test_quantities_read_back(results: pl.DataFrame) -> None:
    for quantity in quantities(results):
        assert Quantity.parse(str(quantity)) == quantity
        assert len(values(results, quantity))


def test_every_number_belongs_to_one_quantity(results: pl.DataFrame) -> None:
    strict = ("calibrator", "factor", "head", "score", "id_dataset")
    total = 0
    for quantity in quantities(results):
        given = dict(quantity.variants)
        total += len(
            results.filter(
                pl.col("metric") == quantity.metric,
                pl.col("dataset") == quantity.dataset,
                *[pl.col(c) == given.get(c, "") for c in strict],
            )
        )
    assert total == len(results)


def test_unnamed_variants_mean_the_study_default() -> None:
    rows = [
        ResultRow(model=m, group=g, dataset="sun", metric="auroc", score=s, value=v)
        for m, g in (("clip", "clip-zero-shot"), ("net", "supervised-in1k"))
        for s, v in (("msp", 0.1), ("mcm", 0.2), ("energy", 0.3))
    ]
    rows += [
        ResultRow(model="clip", group="clip-zero-shot", dataset="val", metric="top1", head=h, value=v)
        for h, v in (("photo-1", 0.5), ("openai-80", 0.6))
    ]
    frame = to_frame(rows)
    assert values(frame, "auroc@sun").select("model", "value").rows() == [("clip", 0.2), ("net", 0.1)]
    assert values(frame, "auroc@sun", score="energy")["value"].to_list() == [0.3, 0.3]
    assert values(frame, "top1@val")["value"].to_list() == [0.6]


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("top11@imagenet-val", "did you mean top1"),
        ("top1@imagenet-vall", "did you mean imagenet-val"),
        ("ece@imagenet-val[calibrator=vector]", "calibrator is one of"),
        ("top1@a[foo=b]", "not a variant"),
        ("@x", "form"),
        ("factor_accuracy@imagenet-val", r"not say which factor: background, .*write .*\[factor=background\]$"),
        ("top1", r"write .*top1@imagenet-a or top1@imagenet-r or"),
        ("auroc@qqq", r"write auroc@[a-z-]+ or auroc@"),
    ],
)
def test_unknown_quantities_name_the_nearest(results: pl.DataFrame, text: str, stated: str) -> None:
    with pytest.raises(UserError, match=stated):
        values(results, text)


def test_the_in_distribution_set_is_found(results: pl.DataFrame) -> None:
    assert id_dataset_of(results) == "imagenet-val"


def test_what_is_looked_up_once_is_the_same_and_of_its_own_table(results: pl.DataFrame) -> None:
    other = results.with_columns(pl.col("value") / 2)
    asked = [*quantities(results)[:40], Quantity("top1", "nowhere"), Quantity("auroc", "ood-0")]

    def found(table: pl.DataFrame) -> list[object]:
        answered: list[object] = []
        for quantity in asked:
            try:
                answered.append(values(table, quantity).rows())
            except UserError as error:
                answered.append(str(error))
        return answered

    plain = found(results)
    with looked_up_once(results):
        assert found(results) == plain
        assert found(results) == plain, "also the second time, errors too"
        assert found(other) != plain
    assert found(other) != plain
