"""Fixtures of the analysis tests. A result table of realistic shape, made from planted lines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.special import expit, ndtr

from analyze.results import ResultRow, to_frame

SOURCES_OF_GROUP = {
    "clip-zero-shot": ("wit", "laion-80m", "laion-400m", "laion-2b", "laion-aesthetic"),
    "clip-ft-in1k": ("wit", "laion-2b"),
    "clip-ft-in12k": ("wit", "laion-2b"),
    "supervised-in1k": ("imagenet-1k",),
    "self-supervised": ("imagenet-1k",),
    "more-data": ("imagenet-21k", "ig-1b"),
}
SHIFTS = (
    "imagenet-v2-a",
    "imagenet-v2-b",
    "imagenet-v2-c",
    "imagenet-r",
    "imagenet-a",
    "imagenet-sketch",
    "objectnet",
    "imagenet-vid-robust",
)
OOD_SETS = ("inaturalist", "sun", "places", "textures", "imagenet-o")
FACTORS = (
    "pose",
    "background",
    "pattern",
    "color",
    "smaller",
    "shape",
    "partial_view",
    "subcategory",
    "texture",
    "larger",
)


def make_results(n_models: int = 36, *, seed: int = 0, filler_metrics: int = 0) -> pl.DataFrame:
    """Return a result table whose accuracies lie on planted probit lines, lifted for CLIP models."""
    rng = np.random.default_rng(seed)
    groups = list(SOURCES_OF_GROUP)
    rows: list[ResultRow] = []
    for index in range(n_models):
        group = groups[index % len(groups)]
        sources = SOURCES_OF_GROUP[group]
        source = sources[(index // len(groups)) % len(sources)]
        card = {
            "model": f"{group}-{source}-{index:03d}",
            "group": group,
            "source": source,
            "family": ("vit", "cnn", "hybrid", "mlp")[index % 4],
            "parameters": int(10 ** rng.uniform(6.7, 9)),
            "input_size": int(rng.choice([224, 256, 336])),
            "samples_seen": int(10 ** rng.uniform(9, 10.5)) if group == "clip-zero-shot" else None,
        }
        clip = group.startswith("clip")
        skill = rng.normal(0.55, 0.35)
        rows += _model_rows(rng, card, clip=clip, skill=skill)
        for number in range(filler_metrics):
            for dataset in ("imagenet-val", *SHIFTS):
                rows.append(
                    ResultRow(
                        dataset=dataset,
                        role="id" if dataset == "imagenet-val" else "shift",
                        n=10_000,
                        metric=f"further_{number:02d}",
                        value=float(rng.random()),
                        direction="none",
                        **card,
                    )
                )
    return to_frame(rows)


def _model_rows(rng: np.random.Generator, card: dict, *, clip: bool, skill: float) -> list[ResultRow]:
    rows = []

    def add(metric: str, dataset: str, value: float, n: int, direction: str, **variant: str) -> None:
        half = 1.96 * np.sqrt(max(value * (1 - value), 1e-4) / n) if value <= 1 else 0.02 * value
        rows.append(
            ResultRow(
                metric=metric,
                dataset=dataset,
                value=float(value),
                low=float(value - half),
                high=float(value + half),
                n=n,
                direction=direction,
                **variant,
                **card,
            )
        )

    for position, dataset in enumerate(("imagenet-val", *SHIFTS)):
        n = 50_000 if position == 0 else 7_500
        role = "id" if position == 0 else "shift"
        drop = 0.0 if position == 0 else 0.15 + 0.12 * position - (0.4 if clip else 0)
        top1 = ndtr(skill * (1 - 0.02 * position) - drop + rng.normal(0, 0.03 if position else 0))
        heat = expit(rng.normal(-2.6, 0.4)) + (0.02 * position if not clip else 0.005 * position)
        common = {"role": role}
        add("top1", dataset, top1, n, "higher", **common)
        add("top5", dataset, 1 - (1 - top1) ** 1.8, n, "higher", **common)
        for calibrator, factor in (("", 1.0), ("temperature", 0.4 if clip else 0.7)):
            variant = {"calibrator": calibrator, "id_dataset": "imagenet-val" if calibrator else "", **common}
            add("ece", dataset, heat * factor, n, "lower", **variant)
            add("nll", dataset, 4 * (1 - top1) + heat * factor, n, "lower", **variant)
        add("brier", dataset, 1.2 * (1 - top1), n, "lower", **common)
        add("aurc", dataset, 0.8 * (1 - top1) ** 1.5, n, "lower", **common)
    score = "mcm" if card["group"] == "clip-zero-shot" else "msp"
    for position, dataset in enumerate(OOD_SETS):
        auroc = ndtr(0.9 + 0.4 * skill - 0.12 * position + rng.normal(0, 0.08))
        variant = {"score": score, "id_dataset": "imagenet-val", "role": "ood"}
        add("auroc", dataset, auroc, 10_000, "higher", **variant)
        add("fpr95_id", dataset, min(0.99, 1.9 * (1 - auroc)), 10_000, "lower", **variant)
    for position, factor in enumerate(FACTORS):
        lift = 0.12 if clip and position % 2 else 0.0
        value = ndtr(0.97 * skill - 0.02 * position + lift + rng.normal(0, 0.03))
        add(
            "factor_accuracy",
            "imagenet-val",
            value,
            [15_064, 14_751, 5_972, 6_150, 1_450, 679, 638, 585, 282, 150][position],
            "higher",
            factor=factor,
            role="id",
        )
    add(
        "shape_bias",
        "cue-conflict",
        expit(rng.normal(0.3 if clip else -0.9, 0.3)),
        1_200,
        "none",
        role="shift",
    )
    if card["group"] == "clip-zero-shot":
        for number, head in enumerate(("photo-1", "study-5", "study-30", "openai-80")):
            add(
                "top1",
                "imagenet-val",
                ndtr(skill - 0.06 * (3 - number)),
                50_000,
                "higher",
                head=head,
                role="id",
            )
            add(
                "ece",
                "imagenet-val",
                0.03 + 0.01 * number + 0.02 * skill,
                50_000,
                "lower",
                head=head,
                role="id",
            )
    return rows


@pytest.fixture(scope="session")
def results() -> pl.DataFrame:
    """Return a result table of 36 synthetic models (do not change it in place)."""
    return make_results()


@pytest.fixture(scope="session")
def results_maker() -> Callable[..., pl.DataFrame]:
    """Return the generator itself, for other sizes."""
    return make_results


@pytest.fixture
def toy_store(tmp_path):
    """Write a prediction store of random logits that know something of their labels; options by keyword."""
    from cache_schema import DatasetCard, ModelCard, write_store

    def make(
        *,
        n=200,
        n_classes=10,
        seed=0,
        skill=2.0,
        model="m",
        dataset="val",
        role="id",
        scale=None,
        card=None,
        labels=None,
        logits=None,
        valid=None,
        metadata=None,
        backend="zarr",
        cache=None,
        features=None,
    ):
        rng = np.random.default_rng(seed)
        card = dict(card or {})
        if labels is None:
            labels = np.random.default_rng(1000 + n).integers(0, n_classes, n)
        if logits is None:
            logits = rng.normal(0, 1, (n, n_classes))
            if role != "ood":
                logits[np.arange(n), np.clip(labels, 0, n_classes - 1)] += skill
            if scale is not None:
                logits = (0.2 + 0.02 * logits) * scale
        return write_store(
            cache or tmp_path / "cache",
            model=ModelCard(
                id=model,
                head_kind="zero-shot" if scale else "linear",
                logit_scale=scale,
                group="clip-zero-shot" if scale else "supervised-in1k",
            ),
            dataset=DatasetCard(**{"id": dataset, "role": role, "class_space": "toy", "n_classes": n_classes} | card),
            logits=np.asarray(logits, np.float32),
            labels=None if role == "ood" else np.asarray(labels),
            image_ids=[f"{dataset}/{i:06d}.jpg" for i in range(n)],
            valid=valid,
            metadata=metadata,
            backend=backend,
            features=features,
        )

    return make


HOSTILE_NAMES = [
    "</script><script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "'\"><b>bold</b>@@DATA@@",
    "a\u2028b&amp;",
    "javascript:alert(1)",
    "{{x}} ${y} \\u003c",
]


@pytest.fixture
def hostile_names() -> list[str]:
    """Return model names that would do harm if a page took them for markup."""
    return list(HOSTILE_NAMES)


@pytest.fixture
def hostile_table() -> pl.DataFrame:
    """Return a result table whose every name is hostile."""
    rng = np.random.default_rng(4)
    return to_frame(
        [
            ResultRow(
                model=name,
                dataset=dataset,
                metric=metric,
                value=float(rng.uniform(0.2, 0.9)),
                role=role,
                group="self-supervised",
                source=name,
                factor=name if metric == "factor_accuracy" else "",
                store=name,
            )
            for name in HOSTILE_NAMES
            for metric in ("top1", "ece", "factor_accuracy", HOSTILE_NAMES[1])
            for dataset, role in (("val", "id"), (HOSTILE_NAMES[0], "shift"))
        ]
    )
