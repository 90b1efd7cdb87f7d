"""What somebody passes by mistake is answered with what was meant."""

from __future__ import annotations

import numpy as np
import pytest

import cache_schema
from analyze import detectors
from analyze.cli import main
from analyze.metrics import aurc, brier_score, expected_calibration_error
from closerlook_common.errors import UserError

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(4), 20)
Y = RNG.integers(0, 4, 20)
F = RNG.normal(size=(20, 3)).astype(np.float32)


@pytest.mark.parametrize("metric", [expected_calibration_error, aurc])
def test_probabilities_and_labels_in_place_of_confidences(metric) -> None:
    with pytest.raises(UserError, match=r"of probabilities p and labels y take p\.max\(axis=1\) and p\.argmax"):
        metric(P, Y)
    assert 0 <= metric(P.max(axis=1), P.argmax(axis=1) == Y) <= 1


def test_one_hot_labels() -> None:
    with pytest.raises(UserError, match=r"labels.*argmax"):
        brier_score(P, np.eye(4)[Y])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reference": (F, Y)}, r"\(features, logits, labels\) of the training set; got 2 arrays"),
        ({"reference": F}, r"\(features, logits, labels\) of the training set; got one array"),
        ({"reference": (F, P, Y), "head": F}, r"a head is \(weight, bias\) or a store; got one array"),
    ],
)
def test_arrays_in_place_of_a_reference_or_a_head(given, says: str) -> None:
    with pytest.raises(UserError, match=says):
        detectors.get("vim").fit(**{"head": (RNG.normal(size=(4, 3)), np.zeros(4)), **given})


def test_an_array_in_place_of_validation_rows() -> None:
    with pytest.raises(UserError, match=r"validation is .* got one array"):
        detectors.get("react").fit(validation=F, head=(RNG.normal(size=(4, 3)), np.zeros(4)))


@pytest.mark.parametrize(
    ("role", "printed"),
    [("ood", "photos: out-of-distribution (role 'ood')"), ("features", "photos: the stores hold no logits")],
)
def test_a_cache_without_numbers_says_why(tmp_path, capsys, role, printed):
    root = tmp_path / "cache"
    rng = np.random.default_rng(0)
    outputs = {"features" if role == "features" else "logits": rng.normal(size=(30, 10)).astype(np.float32)}
    card = cache_schema.DatasetCard(id="photos", role="ood" if role == "ood" else "id", class_space="toy", n_classes=10)
    cache_schema.write_store(
        root, model=cache_schema.ModelCard(id="m"), dataset=card, labels=None if role == "ood" else np.zeros(30, int),
        image_ids=[f"{i}.jpg" for i in range(30)], **outputs,
    )  # fmt: skip
    assert main(["metrics", str(root), "-o", str(tmp_path / "r.parquet")]) == 0
    assert printed in capsys.readouterr().err
    main(["show", str(root), "m"])
    assert printed in capsys.readouterr().err
    assert main(["report", str(root), "-o", str(tmp_path / "r.html")]) == 2
    assert "no number to report. photos: " in capsys.readouterr().err


def test_an_error_names_arguments_in_python_and_flags_on_the_command_line(tmp_path, capsys):
    from analyze.interactive import Results
    from analyze.results import ResultRow, to_frame

    rows = [
        ResultRow(model="a", dataset="d", metric="top1", value=v, role="id", store=s)
        for v, s in ((0.5, "x"), (0.6, "y"))
    ]
    frame = to_frame(rows)
    with pytest.raises(UserError, match="narrow the table with `where`, or add a column to `rows`"):
        Results(frame).table()
    frame.write_parquet(tmp_path / "r.parquet")
    assert main(["table", str(tmp_path / "r.parquet")]) == 2
    assert "narrow the table with --where, or add a column to --rows" in capsys.readouterr().err
