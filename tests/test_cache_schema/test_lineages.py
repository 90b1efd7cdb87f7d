"""Near-copies share a lineage, and nothing that an identity depends on moves with it."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import ModelCard
from cache_schema.format.identities import prediction_identity
from cache_schema.format.model_names.card_fields import derive
from cache_schema.format.model_names.lineages import LEVELS, at_level, card_lineage, series_of

ONE_RUN = [
    # epochs of one run, with the activation named or not
    [("open_clip", "ViT-B-32-quickgelu/laion400m_e31"), ("open_clip", "ViT-B-32/laion400m_e32")],
    # soups, rewinds and the fine-tuned classifier
    [
        ("open_clip", "convnext_xxlarge/laion2b_s34b_b82k_augreg"),
        ("open_clip", "convnext_xxlarge/laion2b_s34b_b82k_augreg_rewind"),
        ("open_clip", "convnext_xxlarge/laion2b_s34b_b82k_augreg_soup"),
        ("timm", "convnext_xxlarge.clip_laion2b_soup_ft_in1k"),
    ],
    # resolutions of one checkpoint
    [("open_clip", "ViT-L-14/openai"), ("open_clip", "ViT-L-14-336/openai")],
    [
        ("open_clip", "convnext_large_d/laion2b_s26b_b102k_augreg"),
        ("open_clip", "convnext_large_d_320/laion2b_s29b_b131k_ft_soup"),
        ("timm", "convnext_large_mlp.clip_laion2b_augreg_ft_in1k_384"),
    ],
    [
        ("open_clip", "ViT-B-16/openai"),
        ("timm", "vit_base_patch16_clip_224.openai"),
        ("timm", "vit_base_patch16_clip_384.openai_ft_in12k_in1k"),
    ],
    [
        ("timm", "swin_base_patch4_window7_224.ms_in22k_ft_in1k"),
        ("timm", "swin_base_patch4_window12_384.ms_in22k_ft_in1k"),
        ("timm", "swin_base_patch4_window7_224.ms_in22k"),
    ],
    [("timm", "convnext_base.fb_in22k_ft_in1k"), ("timm", "convnext_base.fb_in22k_ft_in1k_384")],
    [("timm", "deit_base_patch16_224.fb_in1k"), ("timm", "deit_base_patch16_384.fb_in1k")],
    [("timm", "vit_base_patch16_224.augreg_in21k_ft_in1k"), ("timm", "vit_base_patch16_384.augreg_in21k_ft_in1k")],
]
TWO_RUNS = [
    [("open_clip", "ViT-B-32/laion2b_e16"), ("open_clip", "ViT-B-32/laion2b_s34b_b79k")],
    [("open_clip", "convnext_base_w/laion2b_s13b_b82k"), ("open_clip", "convnext_base_w/laion2b_s13b_b82k_augreg")],
    [("timm", "resnet50.a1_in1k"), ("timm", "resnet50.a2_in1k")],
    [("timm", "convnext_base.fb_in1k"), ("timm", "convnext_base.fb_in22k_ft_in1k")],
    [("open_clip", "ViT-B-32/openai"), ("open_clip", "ViT-B-16/openai")],
]


def lineage(library: str, name: str) -> str:
    return str(derive(library, name)["lineage"])


@pytest.mark.parametrize("models", ONE_RUN)
def test_near_copies_share_a_training_run(models: list[tuple[str, str]]) -> None:
    assert len({at_level(lineage(*model), "run") for model in models}) == 1
    assert len({lineage(*model) for model in models}) == len(models)


@pytest.mark.parametrize("models", TWO_RUNS)
def test_other_runs_of_a_backbone_do_not(models: list[tuple[str, str]]) -> None:
    assert len({at_level(lineage(*model), "run") for model in models}) == 2


def test_a_name_without_weights_has_none_and_a_card_of_an_older_store_gets_one() -> None:
    assert lineage("timm", "resnet50") == lineage("open_clip", "hf-hub:a/b") == lineage("import", "a.b") == ""
    old = ModelCard(id="m", library="timm", name="resnet50.a1_in1k", source="imagenet-1k")
    assert card_lineage(old) == "resnet:imagenet-1k/resnet50.a1_in1k/resnet50.a1_in1k"
    assert card_lineage(ModelCard(id="m", lineage="my run")) == "my run"
    assert ModelCard.from_record({"id": "m", "library": "timm", "name": "x"}).lineage == ""


@given(st.text(max_size=40), st.sampled_from(LEVELS))
def test_any_name_of_a_users_own_is_kept_and_cut_at_slashes_alone(text: str, level: str) -> None:
    cut = at_level(text, level)
    assert text.startswith(cut)
    assert at_level(cut, level) == cut
    assert cut == text or text[len(cut)] == "/"


@given(st.text(max_size=30))
def test_a_series_can_be_found_for_any_name(name: str) -> None:
    assert series_of(name) == series_of(name)
    assert isinstance(series_of(name), str)


def test_no_identity_holds_a_lineage() -> None:
    assert "lineage" not in inspect.signature(prediction_identity).parameters
