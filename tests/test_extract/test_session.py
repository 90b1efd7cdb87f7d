"""The command from end to end: what it stores, what it skips, what it says, what it does the second time."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from timm.data import create_transform, resolve_data_config

import cache_schema
from extract.commands.progress import LINE_EVERY, Reporter, print_failures
from extract.libraries import load, prepare
from extract.passes import image_rows, pixel_room
from extract.passes.events import Event
from extract.passes.image_rows import open_row
from extract.zoo.model_list import parse_line, read_model_list

MODELS = """
timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64
timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=64 crop_pct=1.0 interpolation=bicubic
timm:test_efficientnet allow_random=yes num_classes=3 classes=pets input_size=64 crop_pct=1.0 interpolation=bicubic
"""
DATASETS = '[pets]\npath = "{root}"\nclass_space = "pets"\n\n[pets-ood]\npath = "{root}/cat"\nlabels = "none"\n'


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(DATASETS.format(root=pets))
    return tmp_path


def test_stores_equal_the_library_and_a_second_run_does_nothing(study: Path, run_extract, digests) -> None:
    first = run_extract("--model-list", "models.txt", "--cache", "cache", "--batch-size", 8, "--workers", 1, cwd=study)
    assert "6 done, 0 sealed before, 0 skipped, 0 failed" in first.stderr
    cache = cache_schema.open_cache(study / "cache")
    assert sorted(card.id for card in cache.models()) == ["test_efficientnet", "test_resnet", "test_vit"]

    for spec in read_model_list(study / "models.txt"):
        prepared = prepare(spec)
        store = cache.store(spec.id, "pets")
        assert len(store) == 45
        assert store.valid.all()
        speed = store.record["speed"]
        assert speed["images"] == 45
        assert speed["images_per_second"] == pytest.approx(45 / speed["seconds"], rel=0.05)
        for part in ("device", "decode", "transfer", "forward", "write"):
            assert 0 < speed[f"{part}_share"] < 1, part
        assert speed["device_share"] + speed["transfer_share"] + speed["decode_wait_share"] < 1.001
        assert store.labels.tolist() == [0] * 15 + [1] * 15 + [2] * 15
        # The library's own way: its model, its transform.
        module = load(prepared, device="cpu", precision="fp32").module
        config = resolve_data_config({"input_size": (3, 64, 64)}, model=module, use_test_size=True)
        if "crop_pct" in spec.options:
            config |= {"crop_pct": 1.0, "interpolation": "bicubic"}
        transform = create_transform(**config, is_training=False)
        folder = Path((study / "datasets.toml").read_text().split('"')[1])
        with torch.inference_mode():
            images = torch.stack([transform(Image.open(folder / i).convert("RGB")) for i in store.image_ids[:16]])
            want = torch.cat([module(images[:8]), module(images[8:])]).numpy()
        got = store.logits(0, 16)
        span = want.max() - want.min()
        # The centred encoding keeps a logit to 2^-11 of its distance from the row's top.
        np.testing.assert_allclose(got, want, atol=2**-11 * span + 1e-5)
        np.testing.assert_array_equal(got.argmax(1), want.argmax(1))
        head = cache.head(spec.id, "pets")
        np.testing.assert_allclose(head.logits(store.features(0, 16)), want, atol=2e-3 * span + 1e-4)

    before = digests(study / "cache")
    second = run_extract("--model-list", "models.txt", "--cache", "cache", cwd=study)
    assert "0 done, 6 sealed before" in second.stderr
    assert digests(study / "cache") == before


def test_batch_size_workers_and_backend_change_nothing_but_float_noise(study: Path, run_extract) -> None:
    run_extract("--model-list", "models.txt", "--cache", "a", "--batch-size", 45, "--workers", 0, cwd=study)
    run_extract(
        "--model-list", "models.txt", "--cache", "b", "--batch-size", 7, "--workers", 2, "--store", "hdf5", cwd=study
    )
    one, two = cache_schema.open_cache(study / "a"), cache_schema.open_cache(study / "b")
    for store in one.stores("predictions"):
        other = two.store(store.model.id, store.dataset.id)
        assert other.record["identity"] == store.record["identity"]
        assert other.image_ids == store.image_ids
        np.testing.assert_allclose(other.logits(), store.logits(), atol=2e-3)
        np.testing.assert_allclose(other.features(), store.features(), rtol=2e-3, atol=2e-3)


def test_group_pass_equals_single_model_passes(study: Path, run_extract, monkeypatch, digests) -> None:
    """Models that share a pass, models alone, and models in waves of one over kept pixels: equal stores."""
    options = ("--batch-size", 8, "--workers", 0)
    decoded: list[int] = []
    monkeypatch.setattr(image_rows, "open_row", lambda *args: decoded.append(args[1]) or open_row(*args))
    assert len({prepare(spec).preprocessing.mean for spec in read_model_list(study / "models.txt")[1:]}) == 2
    run_extract("--model-list", "models.txt", "--cache", "together", *options, cwd=study)
    # Of three models two share a geometry: 45 + 15 images are decoded once for all three.
    assert len(decoded) == 45 + 15
    for number, line in enumerate(MODELS.strip().splitlines()):
        (study / f"{number}.txt").write_text(line)
        run_extract("--model-list", f"{number}.txt", "--cache", "alone", *options, cwd=study)
    decoded.clear()
    run_extract(
        "--model-list",
        "models.txt",
        "--cache",
        "waves",
        "--resident",
        1,
        "--pixel-cache",
        "pixels",
        *options,
        cwd=study,
    )
    # The first wave of one model makes and keeps the pixels of the others.
    assert len(decoded) == 45 + 15
    decoded.clear()
    with monkeypatch.context() as small:
        small.setattr(pixel_room, "MOST_BYTES", 1)
        run_extract("--model-list", "models.txt", "--cache", "apart", *options, cwd=study)
    # Without memory for two geometries side by side each takes a pass of its own.
    assert len(decoded) == 2 * (45 + 15)
    together = digests(study / "together")
    assert digests(study / "alone") == together
    assert digests(study / "apart") == together
    assert digests(study / "waves") == together
    # Two models share one geometry, so the pixels of each dataset are kept once for both.
    assert len(list((study / "pixels").glob("*.u8"))) == 4


def test_what_fails_is_stated_and_the_rest_goes_on(study: Path, run_extract, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lines = MODELS.strip().splitlines()
    (study / "torn.safetensors").write_bytes(b"not a checkpoint")
    lines[1] = "timm:test_resnet checkpoint=torn.safetensors num_classes=3 classes=pets id=torn"
    lines.append("timm:test_byobnet.r160_in1k id=online")
    (study / "models.txt").write_text("\n".join(lines))
    done = run_extract("--model-list", "models.txt", "--cache", "cache", "--workers", 0, cwd=study, code=1)
    assert "4 done" in done.stderr
    assert "Traceback" not in done.stderr
    assert "torn" in done.stderr
    cache = cache_schema.open_cache(study / "cache")
    assert {store.model.id for store in cache.stores("predictions")} == {"test_vit", "test_efficientnet"}
    status = run_extract("status", "cache", cwd=study, code=1)
    assert "3 models x 2 datasets: 4 sealed, 2 failed, 0 missing" in status.stdout
    rows = {line.split()[0]: line.split()[1:] for line in status.stdout.splitlines() if line[:1] not in ("", " ")}
    assert rows["test_vit"] == rows["test_efficientnet"] == ["●", "●"]
    assert rows["torn"] == ["✗", "✗"]
    assert status.stdout.count("failed torn on 2 datasets: ") == 1
    assert done.stderr.count("failed torn on pets: ") == 1  # while it runs
    assert "failed torn on 2 datasets" not in done.stderr  # once is enough
    assert (
        "2 failures while running: reasons are above, and 'extract status cache' lists those of models." in done.stderr
    )


def test_two_caches_are_joined_by_copying(study: Path, run_extract, digests) -> None:
    torn = study / "torn.pth"
    torn.write_bytes(b"not a checkpoint")
    line = "timm:test_vit checkpoint=torn.pth num_classes=3 classes=pets input_size=64 id=m\n"
    (study / "one.txt").write_text(line + "timm:test_vit allow_random=yes num_classes=3 classes=pets id=a\n")
    run_extract("--model-list", "one.txt", "--cache", "first", "--workers", 0, cwd=study, code=1)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), torn)
    (study / "two.txt").write_text(line)
    run_extract("--model-list", "two.txt", "--cache", "second", "--workers", 0, cwd=study)
    shutil.copytree(study / "second", study / "first", dirs_exist_ok=True)
    status = run_extract("status", "first", cwd=study)
    assert "2 models x 2 datasets: 4 sealed, 0 failed, 0 missing" in status.stdout
    assert "failed m" not in status.stdout
    assert {name[:2] for name in digests(study / "second")} < {name[:2] for name in digests(study / "first")}


def test_status_of_a_cache_that_holds_summaries_alone_says_so(tmp_path: Path, run_extract) -> None:
    for model in ("a", "b"):
        cache_schema.write_summary(
            tmp_path / "cache", model=cache_schema.ModelCard(id=model), dataset=cache_schema.DatasetCard(id="d"),
            columns={"confidence": [0.5, 0.25]},
        )  # fmt: skip
    status = run_extract("status", "cache", cwd=tmp_path).stdout
    assert "only summaries are here (stores: 2, models: 2): 'analyze' reads them" in status


def test_own_classes_are_named_by_a_dataset_or_a_file(study: Path, run_extract) -> None:
    model = "timm:test_vit allow_random=yes num_classes=3 input_size=64 id="
    (study / "names.txt").write_text("cat\ndog\nfox\n")
    (study / "other.txt").write_text("fox\ndog\ncat\n")
    lines = ["nothing", "dataset classes=mine", "file classes=names.txt", "other classes=other.txt"]
    (study / "own.txt").write_text("\n".join(model + line for line in lines))
    folder = (study / "datasets.toml").read_text().split('"')[1]
    words = ["--model-list", "own.txt", "--dataset", f"mine={folder}", "--cache", "cache", "--workers", 0]
    done = run_extract(*words, cwd=study)
    assert "3 done" in done.stderr  # names are matched whatever their order
    assert {store.model.id for store in cache_schema.open_cache(study / "cache").stores("predictions")} == {
        "dataset", "file", "other",
    }  # fmt: skip
    assert "if these are its classes in this order, put classes=mine into its line" in done.stderr
    assert "skipped nothing on mine: " in done.stderr
    (study / "own.txt").write_text(f"{model}x num_classes=4 classes=names.txt".replace("num_classes=3 ", ""))
    assert "names 3 classes, x answers in 4" in run_extract(*words, cwd=study, code=2).stderr


def test_a_head_of_the_wrong_width_is_skipped_before_anything_runs(study: Path, run_extract) -> None:
    folder = Path((study / "datasets.toml").read_text().split('"')[1])
    (study / "own.txt").write_text("timm:test_vit allow_random=yes num_classes=3 input_size=64 id=m classes=few\n")
    few = study / "few"  # three of ImageNet's thousand
    few.mkdir()
    for wnid, name in {"n01440764": "cat", "n02123045": "dog", "n02119022": "fox"}.items():
        (few / wnid).symlink_to(folder / name)
    words = ["--model-list", "own.txt", "--cache", "cache", "--workers", 0]
    done = run_extract(*words, "--dataset", f"few={few}", cwd=study)
    assert "its head has 3 outputs, the 1000 classes of few are imagenet-1k" in done.stderr
    assert 'say classes = "folders" in the table of few' in done.stderr
    (study / "few.toml").write_text(f'[few]\npath = "{few}"\nclasses = "folders"\n')
    assert "1 done" in run_extract(*words, "--datasets", "few.toml", cwd=study).stderr
    (store,) = cache_schema.open_cache(study / "cache").stores("predictions")
    assert store.dataset.class_names == ("tench", "red fox", "tabby cat")


def test_datasets_share_classes_by_name(study: Path, run_extract) -> None:
    folder = (study / "datasets.toml").read_text().split('"')[1]
    (study / "other").mkdir()
    (study / "other" / "zebra").symlink_to(f"{folder}/cat")
    toml = f'[pets]\npath = "{folder}"\n[cats]\npath = "{folder}"\nrole = "shift"\nclasses = "pets"\n'
    toml += 'manifest = "cats.csv"\n'
    toml += '[zoo]\npath = "other"\n[ood]\npath = "other"\nrole = "ood"\n'
    image = next(Path(folder, "dog").iterdir()).name
    (study / "cats.csv").write_text(f"Filename,class\ndog/{image},dog\n")
    (study / "both.toml").write_text(toml)
    (study / "own.txt").write_text("timm:test_vit allow_random=yes num_classes=3 input_size=64 id=m classes=pets\n")
    words = ["--model-list", "own.txt", "--datasets", "both.toml", "--cache", "cache", "--workers", 0]
    printed = run_extract(*words, cwd=study, code=2).stderr
    assert 'whose classes its logits are to be of, classes = "pets" or classes = "zoo" in its table' in printed
    (study / "both.toml").write_text(toml + 'classes = "pets"\n')
    assert "3 done" in run_extract(*words, cwd=study).stderr
    stores = cache_schema.open_cache(study / "cache").stores("predictions")
    cards = {store.dataset.id: store.dataset for store in stores}
    assert {cards[name].class_names for name in ("pets", "cats", "ood")} == {("cat", "dog", "fox")}
    assert "4 found whole" in run_extract("datasets", "--datasets", "both.toml", cwd=study).stdout
    assert cards["ood"].role == "ood"
    (study / "both.toml").write_text(toml.replace('"pets"', '"ood"') + 'classes = "zoo"\n')
    printed = run_extract(*words, cwd=study, code=1).stderr
    assert "failed cats: " in printed
    assert "classes = 'ood': that dataset cannot be read, or takes its classes from another itself" in printed


def test_what_was_sealed_counts_as_such_on_a_machine_that_never_hashed_the_weights(
    study: Path, run_extract, monkeypatch, tmp_path: Path
) -> None:
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), study / "vit.pth")
    (study / "one.txt").write_text("timm:test_vit checkpoint=vit.pth classes=pets")
    words = ["--model-list", "one.txt", "--cache", "cache", "--workers", 0]
    for machine, says in (("here", "2 done, 0 sealed before"), ("there", "0 done, 2 sealed before")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        assert says in run_extract(*words, cwd=study).stderr


def test_models_skipped_for_one_reason_share_a_line(study: Path, run_extract) -> None:
    lines = [f"timm:test_vit allow_random=yes seed={i} id=m{i}" for i in range(5)]
    (study / "many.txt").write_text("\n".join(lines))
    done = run_extract("--model-list", "many.txt", "--cache", "cache", "--workers", 0, cwd=study)
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 1 + 1  # one a dataset
    assert skipped[0].startswith("skipped 5 models (m0, m1 ...) on pets: it classifies into imagenet-1k")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model-list", "nowhere.txt"], "nowhere.txt"),
        (["--model-list", "models.txt", "--dataset", "x=/no/such/folder"], "/no/such/folder"),
        (["--model-list", "models.txt", "--device", "gpu"], "--device"),
        (["--model-list", "models.txt", "--device", "mps"], "--device takes auto, cpu, cuda or cuda:i, not 'mps'"),
        (["--model-list", "models.txt", "--device", "cuda:99"], "--device cuda:99: torch sees"),
        (["--model-list", "models.txt", "--devices", "98,99"], "--devices cuda:98: torch sees"),
        (["--model-list", "models.txt", "--devices", "cpu,xpu"], "--devices takes auto, cpu, cuda or cuda:i"),
        (["--model-list", "models.txt", "--batch-size", "many"], "--batch-size"),
        (["--model-list", "models.txt", "--shard", "4/4"], "--shard"),
        (["--model-list", "models.txt", "--resident", "-1"], "--resident: -1 is below 0"),
        (["--model-list", "models.txt", "--pixel-cache-gb", "nan"], "--pixel-cache-gb: 'nan' is not a finite number"),
        (["--model-list", "models.txt", "--pixel-cache-gb", "-1"], "--pixel-cache-gb: -1 is not above 0"),
        (["--model-list", "models.txt", "--pixel-cache", "models.txt"], "--pixel-cache models.txt: that is a file"),
        (["--model-list", "models.txt", "--address", "auto"], "--address names a Ray cluster"),
        (["--model-list", "models.txt", "--engine", "ray", "--devices", "cpu,cpu"], "--devices names devices of"),
        (["--model-list", "models.txt", "--reference", "petz"], "did you mean pets?"),
        (["--model-list", "misspelt.txt"], "resnet50"),
        (["--model-list", "models.txt", "--cache", "models.txt"], "models.txt"),
        ([], "--model-list"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(study: Path, run_extract, words: list[str], says: str) -> None:
    (study / "misspelt.txt").write_text("timm:resnt50\n")
    done = run_extract(*words or ["run"], cwd=study, code=2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("extract: ")


def test_dry_run_makes_nothing(study: Path, run_extract) -> None:
    done = run_extract("--model-list", "models.txt", "--cache", "cache", "--dry-run", cwd=study)
    assert "6 stores to make" in done.stderr
    text = "decoded once for every group of models that fits the device (3 models, 2 ways to resize and crop)"
    assert text in " ".join(done.stderr.split())
    assert not (study / "cache").exists()
    words = ("--model-list", "models.txt", "--cache", "cache", "--workers", 0)
    run_extract(*words, cwd=study)
    assert run_extract(*words, "--dry-run", cwd=study).stderr.endswith("0 stores to make, 6 sealed, 0 skipped.\n")


def test_a_model_of_two_lists_is_run_once_if_both_mean_the_same(study: Path, run_extract) -> None:
    line = "timm:test_vit allow_random=yes num_classes=3 classes=pets id=one"
    for name, more in (("a", ""), ("b", " group=mine licence=MIT"), ("c", " crop_pct=0.5")):
        (study / f"{name}.txt").write_text(line + more)
    words = ("--cache", "cache", "--dry-run")
    alike = run_extract("--model-list", "a.txt", "--model-list", "b.txt", *words, cwd=study)
    assert "2 stores to make" in alike.stderr
    # The second line was left out without a word.
    printed = run_extract("--model-list", "a.txt", "--model-list", "c.txt", *words, cwd=study, code=2).stderr
    assert "two models are called 'one' (a.txt:1 and c.txt:1): give one an id=" in printed


def test_progress_never_passes_its_end() -> None:
    """Rows that are counted twice, without the event that begins the pass again, leave less than no time."""
    text = io.StringIO()
    reporter = Reporter({("one", "pets"): 100}, 1, Console(file=text, width=80))
    reporter(Event("pass", "one", "pets"))
    for rows in (60, 60):
        reporter._last_line -= 2 * LINE_EVERY
        reporter(Event("rows", "one", "pets", rows))
    first, second = text.getvalue().splitlines()
    assert "pets: 60 of 100 images x models, " in first
    assert "pets: 100 of 100 images x models, " in second
    assert second.endswith(" 0 s left.")


def test_datasets_with_the_same_unreadable_image_are_named() -> None:
    text = io.StringIO()
    print_failures([("", "a", "1 image"), ("", "b", "1 image"), *(("m", d, "no") for d in "abc")], Console(file=text))
    assert text.getvalue().splitlines() == ["failed a, b: 1 image.", "failed m on 3 datasets: no."]


def test_shards_do_each_part_once(study: Path, run_extract) -> None:
    """Two groups of models by geometry: each shard has one, whichever starts first."""
    parts = []
    for index in (1, 0):
        words = ("--cache", "cache", "--shard", f"{index}/2", "--workers", 0)
        run_extract("--model-list", "models.txt", *words, cwd=study)
        stores = cache_schema.open_cache(study / "cache").stores("predictions")
        parts.append({(store.model.id, store.dataset.id) for store in stores} - set().union(*parts))
    assert [{model for model, _ in part} for part in parts] == [{"test_resnet", "test_efficientnet"}, {"test_vit"}]
    assert [len(part) for part in parts] == [4, 2]


def test_timm_is_run_in_evaluation_mode() -> None:
    assert timm.create_model("test_resnet").training
    (spec,) = parse_line("timm:test_resnet allow_random=yes num_classes=3 classes=pets")
    assert not load(prepare(spec), device="cpu", precision="fp32").module.training
