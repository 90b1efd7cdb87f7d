"""Templates chosen and weighted after extraction: heads of subsets, the stored head again, ZPE by its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.prompted import TemplateChoice, prompted_sources
from analyze.prompted.heads import of_templates
from analyze.prompted.zpe import softmax, template_scores
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError

N, C, P, D, SCALE, BIAS = 260, 6, 7, 12, 40.0, -4.0
NAMES = tuple(f"class {c}" for c in range(C))
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "a bad photo of a {}.", "{}", "art of {}", "a {}, cut", "x {}")
MODEL = ModelCard(id="clip", head_kind="zero-shot", logit_scale=SCALE, logit_bias=BIAS)


def unit(values: Any) -> Any:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def some_texts(rng: np.random.Generator, templates: int = P, classes: int = C, width: int = D) -> Any:
    centre = rng.normal(size=(1, classes, width))
    noise = rng.uniform(0.1, 1.5, (templates, 1, 1)) * rng.normal(size=(templates, classes, width))
    return unit(centre + noise)


def write_head(cache: Path, texts: Any, templates: tuple[str, ...], name: str, **more: Any) -> None:
    total = texts.sum(0)
    cache_schema.write_head(
        cache, model=MODEL, class_space="six", class_names=NAMES, prompt_set=name, templates=templates,
        weight=unit(total).astype(np.float32), bias=np.full(C, BIAS, np.float32), logit_scale=SCALE, logit_bias=BIAS,
        normalize_features=True, text_sum=total.astype(np.float32), **more,
    )  # fmt: skip


class World:
    """A cache of one zero-shot model with two sets of templates, and an unlabelled set that is not of the classes."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.texts = some_texts(rng)
        self.labels = rng.integers(0, C, N)
        self.features = ((self.texts[:, self.labels].mean(0) + rng.normal(size=(N, D)) * 0.4) * 3).astype(np.float32)
        self.valid = np.arange(N) != 9
        self.laion = (rng.normal(size=(90, D)) + 0.5).astype(np.float32)
        write_head(folder, self.texts, TEMPLATES, "seven", text_embeddings=self.texts.astype(np.float16))
        self.two = some_texts(rng, 2)
        write_head(folder, self.two, ("one {}", "two {}"), "two", text_embeddings=self.two.astype(np.float16))
        write_head(folder, self.two, ("one {}", "two {}"), "plain")
        for name, rows, labels, role, mask in (
            ("test", self.features, self.labels, "id", None),
            ("some", self.features, np.where(self.labels < 4, self.labels, -1), "shift", (0, 1, 2, 3)),
            ("laion", self.laion, np.full(90, -1), "ood", None),
        ):
            card = DatasetCard(id=name, role=role, class_space="six", n_classes=C, class_names=NAMES, class_mask=mask)
            cache_schema.write_store(
                folder, model=MODEL, dataset=card, logits=rows @ np.ones((D, C), np.float32), features=rows,
                labels=labels, valid=self.valid[: len(rows)], features_dtype="float32",
            )  # fmt: skip
        self.cache = cache_schema.open_cache(folder)
        self.rounded = self.texts.astype(np.float16).astype(float)

    def logits(self, choice: TemplateChoice, dataset: str = "test", name: str = "seven") -> Any:
        sources, missing = prompted_sources(self.cache, name, choice)
        assert not missing
        (source,) = [source for source in sources if source.dataset == dataset]
        return source.store.logits()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("templates"))


def closely(got: Any, want: Any, rows: Any) -> None:
    """Compare as far as centred float16 goes."""
    np.testing.assert_allclose(got[rows], want[rows], atol=2**-11 * np.ptp(want[rows]) + 1e-4)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (TemplateChoice(only=("0-2,5",)), [0, 1, 2, 5]),
        (TemplateChoice(only=("*photo*", "4")), [0, 2, 4]),
        (TemplateChoice(without=("*PHOTO*",)), [1, 3, 4, 5, 6]),
        (TemplateChoice(only=("0-4",), without=("1", "*bad*")), [0, 3, 4]),
        (TemplateChoice(only=("6",)), [6]),
    ],
)
def test_a_subset_is_the_models_own_head_over_these_templates(
    world: World, choice: TemplateChoice, kept: list[int]
) -> None:
    want = SCALE * unit(world.features) @ unit(world.texts[kept].sum(0)).T + BIAS
    closely(world.logits(choice), want, world.valid)
    mean = SCALE * unit(world.features) @ world.texts[kept].mean(0).T + BIAS
    of_logits = TemplateChoice(choice.only, choice.without, "logits")
    closely(world.logits(of_logits), mean, world.valid)


def test_templates_of_sets_taken_together_count_in_order(world: World) -> None:
    both = np.concatenate([world.texts, world.two])
    want = SCALE * unit(world.features) @ unit(both[[1, 6, 7]].sum(0)).T + BIAS
    closely(world.logits(TemplateChoice(only=("1,6-7",)), name="seven+two"), want, world.valid)


def test_all_templates_are_the_stored_head_itself(world: World) -> None:
    stored = world.logits(TemplateChoice())
    np.testing.assert_array_equal(world.logits(TemplateChoice(only=("0-6",))), stored)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 8), st.integers(2, 64))
def test_equal_weights_give_the_stored_head_to_the_precision_of_float16(
    seed: int, templates: int, classes: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = some_texts(rng, templates, classes, width)
    total = texts.sum(0)
    stored, features = unit(total), unit(rng.normal(size=(50, width)))

    class Like:
        logit_scale, bias = 100.0, np.zeros(classes)

    heads: Any = [Like()]
    found = of_templates(heads, texts.astype(np.float16))
    length = np.linalg.norm(total / templates, axis=1)
    # An element is rounded by at most 2^-11 of itself, so is a mean of rows; dividing by its length enlarges that.
    bound = 100 * (2**-11 + 2**-25 * np.sqrt(width)) * 2 / length + 1e-4
    got, want = found.logits(features.astype(np.float32)), 100 * features @ stored.T
    assert (np.abs(got - want) <= bound).all()
    shares = np.full(templates, 1 / templates)
    mean = of_templates(heads, texts.astype(np.float16), shares).logits(features.astype(np.float32))
    assert (np.abs(mean - 100 * features @ (total / templates).T) <= 100 * 2**-10 + 1e-3).all()


def by_definition(features: Any, texts: Any, pretraining: Any = None) -> Any:
    """Score templates as the authors write it: all logits, debiased, maximum over classes, mean over images."""
    logits = SCALE * np.einsum("nd,pcd->npc", unit(features.astype(float)), texts)
    debiased = logits.mean(0)
    if pretraining is not None:
        random = SCALE * np.einsum("nd,pcd->npc", unit(pretraining.astype(float)), texts)
        debiased = 0.5 * (debiased + random.mean(0))
    return (logits - debiased).max(2).mean(0)


@pytest.mark.parametrize("pretraining", ["", "laion"])
@pytest.mark.parametrize("dataset", ["test", "some"])
def test_zpe_is_its_definition(world: World, dataset: str, pretraining: str) -> None:
    kept = slice(4) if dataset == "some" else slice(None)
    texts, rows = world.rounded, world.features[world.valid]
    away = world.laion[world.valid[:90]] if pretraining else None
    scores = by_definition(rows, texts[:, kept], away)
    weights = np.exp(scores) / np.exp(scores).sum()
    choice = TemplateChoice(weights="zpe", pretraining=pretraining)
    sources, _ = prompted_sources(world.cache, "seven", choice)
    (source,) = [source for source in sources if source.dataset == dataset]
    np.testing.assert_allclose(source.store.template_weights(), weights, rtol=1e-4)
    assert np.ptp(weights) > 0.05
    want = np.einsum("p,npc->nc", weights, SCALE * np.einsum("nd,pcd->npc", unit(world.features), texts)) + BIAS
    closely(source.store.logits(), want, world.valid)
    assert source.store.recorded("prompt_set") == ":".join(filter(None, ["seven", "zpe", pretraining]))


def test_zpe_of_a_subset_weights_only_these(world: World) -> None:
    choice = TemplateChoice(only=("1-3",), weights="zpe")
    (source,) = [s for s in prompted_sources(world.cache, "seven", choice)[0] if s.dataset == "test"]
    scores = by_definition(world.features[world.valid], world.rounded[1:4])
    np.testing.assert_allclose(source.store.template_weights(), np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)
    assert source.store.recorded("prompt_set") == "seven:1-3:zpe"


def test_a_reference_gives_the_mean_of_its_unit_features(world: World, tmp_path: Path) -> None:
    from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator

    World(tmp_path)
    rows, labels = world.laion, np.arange(90) % C
    accumulator = ReferenceAccumulator(C, D, normalize=True)
    accumulator.update(rows, rows @ np.ones((D, C), np.float32), labels, ids=[str(i) for i in range(90)])
    card = DatasetCard(id="training", role="reference", class_space="six", n_classes=C, class_names=NAMES)
    cache_schema.write_reference(tmp_path, model=MODEL, dataset=card, arrays=accumulator.arrays())
    choice = TemplateChoice(weights="zpe", pretraining="training")
    sources, _ = prompted_sources(cache_schema.open_cache(tmp_path), "seven", choice)
    (source,) = [source for source in sources if source.dataset == "test"]
    scores = by_definition(world.features[world.valid], world.rounded, rows)
    np.testing.assert_allclose(source.store.template_weights(), np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(1, 6))
def test_scores_do_not_depend_on_blocks_nor_on_what_all_images_share(
    seed: int, rows: int, templates: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    features, texts = unit(rng.normal(size=(rows, 4))), unit(rng.normal(size=(templates, classes, 4)))
    single = features.astype(np.float32)
    whole = template_scores(lambda: [single], texts, 10.0)
    parts = template_scores(lambda: np.array_split(single, min(3, rows)), texts, 10.0)
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    moved = single + np.float32(0.7)  # what all images share is subtracted
    np.testing.assert_allclose(template_scores(lambda: [moved], texts, 10.0), whole, atol=1e-4)
    assert (whole >= -1e-4).all()  # the mean of maxima is at least the largest mean, which is 0
    np.testing.assert_allclose(softmax(whole).sum(), 1)


def test_command_gives_a_row_for_each_way(world: World, tmp_path: Path) -> None:
    def run(*words: str) -> pl.DataFrame:
        """Return the rows of a run; a later run into the same table replaces them."""
        out = str(tmp_path / "results.parquet")
        own = ["--only", "top1", "--prompts", "seven", "--datasets", "test"]
        assert main(["prompts", str(world.cache.path), "-o", out, *own, *words]) == 0
        return pl.read_parquet(out).filter(
            pl.col("subset") == "", pl.col("calibrator") == "", pl.col("dataset") == "test"
        )

    part = "seven:0 2 4"
    chosen = run("--templates", "*photo*", "--templates", "4", "--weights", "head,logits,zpe")
    whole = run("--weights", "head,zpe", "--pretraining", "laion")
    assert sorted(chosen["head"]) == [part, f"{part}:logits", f"{part}:zpe"]
    assert sorted(whole["head"]) == ["seven", "seven:zpe:laion"]
    table = pl.concat([chosen, whole])
    for name, choice in {
        part: TemplateChoice(only=("0,2,4",)), f"{part}:zpe": TemplateChoice(only=("0,2,4",), weights="zpe"),
        "seven:zpe:laion": TemplateChoice(weights="zpe", pretraining="laion"),
    }.items():  # fmt: skip
        right = (world.logits(choice).argmax(1) == world.labels)[world.valid]
        assert table.filter(pl.col("head") == name)["value"].item() == pytest.approx(right.mean())


def test_a_number_is_computed_again_when_the_choice_changes(world: World) -> None:
    choices = [
        TemplateChoice(), TemplateChoice(only=("1",)), TemplateChoice(only=("1-2",)), TemplateChoice(weights="zpe"),
        TemplateChoice(weights="logits"), TemplateChoice(weights="zpe", pretraining="laion"),
    ]  # fmt: skip
    digests = [prompted_sources(world.cache, "seven", choice)[0][0].digest for choice in choices]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--templates", "*foto of*"], "no template of seven is like '*foto of*'"),
        (["--templates", "5-7"], "no templates 5-7 in seven: its templates are 0 to 6"),
        (["--templates", "0,6-5"], "no templates 0,6-5 in seven"),
        (["--templates", "0-99999999999999"], "no templates 0-99999999999999 in seven"),
        (["--templates", "9" * 5000], "no templates 9999999999999999999999999999999999999999 in seven"),
        (["--without", "*"], "no template of seven is left"),
        (["--weights", "zpf"], "--weights 'zpf' is not known; did you mean zpe?"),
        (["--pretraining", "laion"], "--pretraining is for --weights zpe"),
        (["--weights", "zpe", "--pretraining", "lion"], "has no predictions store of model 'clip' on 'lion'"),
        (["--prompts", "plain", "--templates", "0"], "no embeddings of single templates: 'extract --arrays texts'"),
    ],
)
def test_mistakes_are_one_line(
    world: World, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "r.parquet")
    assert main(["prompts", str(world.cache.path), "-o", out, "--prompts", "seven", *words]) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path(out).exists()


def test_texts_by_class_have_no_templates_to_choose(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_head(tmp_path, world.two, (), "described", n_templates=2, text_embeddings=world.two.astype(np.float16))
    with pytest.raises(UserError, match="described has texts of its own for each class, no templates"):
        prompted_sources(cache_schema.open_cache(tmp_path), "described", TemplateChoice(only=("0",)))
