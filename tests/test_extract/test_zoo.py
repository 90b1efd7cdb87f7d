"""The zoo: a card for every name, lists of the stated lengths whose names all resolve, and their table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cache_schema.format.model_names.card_fields import derive
from cache_schema.format.model_names.families import family_of
from cache_schema.format.model_names.lineages import LEVELS, at_level
from cache_schema.format.model_names.training_sources import SOURCES
from cache_schema.format.records import FAMILIES, GROUPS, UNKNOWN
from closerlook_common.errors import UserError
from extract.zoo.catalogue import NON_COMMERCIAL, entries
from extract.zoo.lists import line_for, list_names, named_list
from extract.zoo.model_list import read_model_list


@cache
def every_name() -> tuple[tuple[str, str], ...]:
    import open_clip
    import timm

    pairs = [("open_clip", f"{architecture}/{tag}") for architecture, tag in open_clip.list_pretrained()]
    return (*pairs, *(("timm", name) for name in timm.list_models(pretrained=True)))


def torchvision_names() -> set[tuple[str, str]]:
    from torchvision import models

    names = models.list_models(module=models)
    every = {("torchvision", f"{name}.{found.name}") for name in names for found in models.get_model_weights(name)}
    return every - {("torchvision", "vgg16.IMAGENET1K_FEATURES")}  # weights of a body without a classifier


# ---- cards


def test_lineages_are_nested_for_every_name() -> None:
    """Each checkpoint belongs to one run, and each run to one backbone."""
    wider: dict[str, set[str]] = {}
    for library, name in every_name():
        whole = derive(library, name)["lineage"]
        assert whole.count("/") == 2
        for wide, narrow in itertools.pairwise(LEVELS):
            wider.setdefault(at_level(whole, narrow), set()).add(at_level(whole, wide))
    assert {narrow: found for narrow, found in wider.items() if len(found) > 1} == {}


def test_every_name_has_a_card() -> None:
    for library, name in every_name():
        card = derive(library, name)
        assert set(card) == {"group", "source", "source_size", "samples_seen", "family", "lineage"}
        assert card["group"] in GROUPS, name
        assert card["family"] in FAMILIES, name
        assert card["source"] in SOURCES, name
        assert card["source_size"] == SOURCES[card["source"]]
        assert any(card[key] != UNKNOWN for key in ("group", "source", "family")), name


def test_what_stays_unknown_is_little_and_named() -> None:
    cards = {name: derive(library, name) for library, name in every_name()}
    assert {name for name, card in cards.items() if card["group"] == UNKNOWN} == {
        name for name in cards if name.endswith(".robbyant")
    }
    assert {name.partition("_")[0] for name, card in cards.items() if card["family"] == UNKNOWN} == {"sequencer2d"}
    assert {name for name, card in cards.items() if card["source"] == UNKNOWN} == {
        name for name in cards if name.endswith(".robbyant")
    }


KNOWN = """
open_clip ViT-B-32-quickgelu/openai clip-zero-shot wit 12800000000 vit
open_clip RN50/yfcc15m clip-zero-shot yfcc-15m - cnn
open_clip ViT-B-16/laion400m_e31 clip-zero-shot laion-400m 12400000000 vit
open_clip ViT-bigG-14/laion2b_s39b_b160k clip-zero-shot laion-2b 39000000000 vit
open_clip convnext_base_w/laion_aesthetic_s13b_b82k clip-zero-shot laion-aesthetic 13000000000 cnn
open_clip xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k clip-zero-shot laion-5b 13000000000 vit
open_clip coca_ViT-B-32/mscoco_finetuned_laion2b_s13b_b90k clip-zero-shot laion-2b 13000000000 vit
open_clip ViT-B-32/datacomp_s_s13m_b4k clip-zero-shot datacomp-s 13000000 vit
open_clip ViT-B-32-256/datacomp_s34b_b86k clip-zero-shot datacomp-1b 34000000000 vit
open_clip ViT-B-16/commonpool_l_clip_s1b_b8k clip-zero-shot commonpool-l-clip 1000000000 vit
open_clip ViT-L-14/commonpool_xl_s13b_b90k clip-zero-shot commonpool-xl 13000000000 vit
open_clip ViT-SO400M-14-SigLIP/webli clip-zero-shot webli - vit
open_clip ViT-H-14-quickgelu/dfn5b clip-zero-shot dfn-5b - vit
open_clip ViT-H-14-quickgelu/metaclip_fullcc clip-zero-shot metaclip-2.5b - vit
open_clip MobileCLIP2-S3/dfndr2b clip-zero-shot dfn-dr-2b - hybrid
open_clip ViTamin-L/datacomp1b clip-zero-shot datacomp-1b - hybrid
open_clip EVA02-L-14/merged2b_s4b_b131k clip-zero-shot merged-2b 4000000000 vit
timm resnet50.a1_in1k supervised-in1k imagenet-1k - cnn
timm vit_base_patch16_224.augreg_in1k supervised-in1k imagenet-1k - vit
timm vit_base_patch16_224.augreg_in21k_ft_in1k more-data imagenet-21k - vit
timm vit_base_patch16_224.sam_in1k supervised-in1k imagenet-1k - vit
timm vit_base_patch16_224.dino self-supervised imagenet-1k - vit
timm vit_base_patch16_224.mae self-supervised imagenet-1k - vit
timm vit_base_patch14_dinov2.lvd142m self-supervised lvd-142m - vit
timm convnextv2_base.fcmae_ft_in1k self-supervised imagenet-1k - cnn
timm convnextv2_base.fcmae_ft_in22k_in1k more-data imagenet-21k - cnn
timm resnet50.fb_ssl_yfcc100m_ft_in1k more-data yfcc-100m - cnn
timm tf_efficientnet_l2.ns_jft_in1k more-data jft-300m - cnn
timm vit_base_patch16_224_miil.in21k_ft_in1k more-data imagenet-21k-p - vit
timm resnetaa50d.sw_in12k_ft_in1k more-data imagenet-12k - cnn
timm vit_base_patch32_clip_224.laion2b_ft_in12k_in1k clip-ft-in12k laion-2b - vit
timm vit_base_patch32_clip_224.openai_ft_in1k clip-ft-in1k wit - vit
timm eva_giant_patch14_224.clip_ft_in1k clip-ft-in1k laion-400m - vit
timm vit_base_patch32_clip_224.metaclip_2pt5b clip-zero-shot metaclip-2.5b - vit
timm rdnet_large.nv_in1k_ft_in1k_384 supervised-in1k imagenet-1k - cnn
timm mixer_b16_224.goog_in21k_ft_in1k more-data imagenet-21k - mlp
timm vit_small_r26_s32_224.augreg_in21k_ft_in1k more-data imagenet-21k - hybrid
timm mobilenetv4_hybrid_medium.e500_r224_in1k supervised-in1k imagenet-1k - hybrid
"""


@pytest.mark.parametrize("row", KNOWN.strip().splitlines())
def test_cards_of_known_models(row: str) -> None:
    library, name, group, source, samples, family = row.split()
    assert (library, name) in every_name()
    card = derive(library, name)
    assert (card["group"], card["source"], card["family"]) == (group, source, family)
    assert card["samples_seen"] == (None if samples == "-" else int(samples))


def test_names_without_a_tag_tell_the_family_alone() -> None:
    assert derive("timm", "resnet50") == {
        "group": UNKNOWN, "source": UNKNOWN, "source_size": None, "samples_seen": None, "family": "cnn",
        "lineage": "",
    }  # fmt: skip
    assert derive("timm", "hf-hub:someone/some.openai_model")["source"] == UNKNOWN
    assert derive("open_clip", "ViT-B-32")["group"] == "clip-zero-shot"
    assert derive("import", "anything")["group"] == UNKNOWN
    assert family_of("an-architecture-of-tomorrow") == UNKNOWN


def test_fine_tuned_clip_of_timm_is_found_whole() -> None:
    """Check the groups against a reading of the names that shares nothing with the rules."""
    for library, name in every_name():
        if library == "timm":
            architecture, tag = name.split(".", 1)
            from_clip = ("_clip_" in architecture or "clip_" in tag or "siglip" in architecture) and "mclip" not in tag
            is_tuned = "_ft_in1" in tag
            assert (derive(library, name)["group"] in ("clip-ft-in1k", "clip-ft-in12k")) == (from_clip and is_tuned), (
                name
            )


# ---- lists

COUNTS = {
    "clip-zero-shot-51": 51, "clip-finetuned-32": 32, "imagenet-127": 127, "closer-look": 210,
    "clip-zero-shot-84": 84, "clip-finetuned-44": 44, "holistic": 255, "all-open-clip": 196,
    "all-timm-in1k": 1319,
}  # fmt: skip


@pytest.mark.parametrize("name", list_names())
def test_lists_have_their_length_and_resolve(name: str) -> None:
    specs = read_model_list(f"@{name}")
    assert len(specs) == len(named_list(name)) == COUNTS[name]
    assert len({spec.id for spec in specs}) == COUNTS[name]
    known = set(every_name())
    for spec in specs:
        assert spec.checkpoint is not None or (spec.library, spec.name) in known, spec.id


@pytest.mark.parametrize("name", ["clip-zero-shot-51", "clip-zero-shot-84"])
def test_local_checkpoints_run_once_their_files_are_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the file is missing: how the weights see images is given by the line or by all tags alike."""
    from extract.libraries import prepare

    monkeypatch.chdir(tmp_path)
    local = [spec for spec in read_model_list(f"@{name}") if spec.checkpoint is not None]
    assert len(local) == 9
    for spec in local:
        assert spec.checkpoint is not None
        spec.checkpoint.parent.mkdir(exist_ok=True)
        spec.checkpoint.write_bytes(b"some")
        preprocessing = prepare(spec).preprocessing
        assert preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073)), spec.id
        assert preprocessing.geometry.output_size == (224, 224)


def test_unions_are_their_parts() -> None:
    parts = [line for name in ("clip-zero-shot-51", "clip-finetuned-32", "imagenet-127") for line in named_list(name)]
    assert named_list("closer-look") == parts
    assert set(named_list("clip-zero-shot-51")) < set(named_list("clip-zero-shot-84"))
    assert set(named_list("clip-finetuned-32")) < set(named_list("clip-finetuned-44"))


@pytest.mark.parametrize("name", list_names())
def test_lines_carry_the_card_of_the_name(name: str) -> None:
    """Lists are edited by hand; a card may differ from the name's only where the weights are a local file."""
    for line in named_list(name):
        head, *options = line.split()
        library, _, model = head.partition(":")
        if not any(option.startswith("checkpoint=") for option in options):
            more = {"quick_gelu": "yes"} if "quick_gelu=yes" in options else {}
            assert line == line_for(library, model, **more)
        assert {"group", "source", "family"} <= {option.partition("=")[0] for option in options} | (
            {"family"} if family_of(model.split(".")[0]) == UNKNOWN else set()
        )


def test_groups_of_the_lists() -> None:
    def groups(name: str) -> Counter[str]:
        return Counter(str(derive(*line.split()[0].split(":", 1))["group"]) for line in named_list(name))

    assert groups("clip-zero-shot-51") == {"clip-zero-shot": 51}
    assert groups("clip-zero-shot-84") == {"clip-zero-shot": 84}
    assert set(groups("clip-finetuned-32")) == {"clip-ft-in1k", "clip-ft-in12k"}
    assert groups("clip-finetuned-44")["more-data"] == 7
    assert groups("imagenet-127") == {"supervised-in1k": 75, "self-supervised": 8, "more-data": 44}


def test_sources_of_the_51() -> None:
    sources = Counter(spec.options["source"] for spec in read_model_list("@clip-zero-shot-51"))
    assert sources == {
        "wit": 9, "laion-80m": 9, "laion-400m": 9, "laion-2b": 19, "laion-aesthetic": 3, "laion-5b": 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["clip-zero-shot-51", "clip-zero-shot-84"])
def test_zero_shot_lists_pick_the_activation_of_the_weights(name: str) -> None:
    import open_clip

    for spec in read_model_list(f"@{name}"):
        architecture, _, tag = spec.name.partition("/")
        if tag and spec.flag("quick_gelu") is None:
            trained = bool((open_clip.get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu", False))
            built = bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu", False))
            assert trained == built, spec.name


def test_headers_say_what_is_verified_and_what_is_chosen() -> None:
    folder = Path(__import__("extract.zoo").zoo.__file__).parent / "lists"
    files = sorted(folder.glob("*.txt"))
    assert len(files) == 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "# Verified:" in text
        assert "# Chosen:" in text


def test_an_unknown_list_is_answered() -> None:
    with pytest.raises(UserError, match="did you mean closer-look"):
        named_list("closerlook")


# ---- the table


def test_every_pretrained_model_has_an_entry() -> None:
    found = list(entries())
    assert {(entry.library, entry.name) for entry in found} == {*every_name(), *torchvision_names()}
    assert all(entry.input_size for entry in found if entry.library == "timm")
    licences = {entry.name: entry.licence for entry in found}
    assert licences["ViT-B-32-quickgelu/metaclip_400m"] in NON_COMMERCIAL
    assert licences["resnet50.a1_in1k"] == "apache-2.0"


def test_models_command(run_extract: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = run_extract("models", "test_vit.*").stdout
    assert "timm:test_vit.r160_in1k" in table
    assert "0.4 M" in table
    again = run_extract("models", "timm:test_vit.*").stdout
    assert again == table
    assert list(tmp_path.rglob("timm-*.json"))


def test_models_command_filters(run_extract: Callable[..., Any]) -> None:
    marked = run_extract("models", "ViT-B-32*", "--source", "metaclip-400m", "--no-parameters").stdout
    assert "cc-by-nc-4.0 (non-commercial)" in marked
    assert "openai" not in marked
    tuned = run_extract("models", "--group", "clip-ft-in12k", "--no-parameters").stdout
    assert "28 models" in tuned
    listed = run_extract("models", "@clip-zero-shot-51", "--source", "laion-80m", "--no-parameters").stdout
    assert "ViT-L-14/laion80m_s34b" in listed
    assert "9 models" in listed


def test_models_command_answers_mistakes(run_extract: Callable[..., Any]) -> None:
    assert "did you mean resnet50" in run_extract("models", "resnt50.a1_in1k", code=2).stderr
    assert "did you mean clip-zero-shot" in run_extract("models", "--group", "clip-zeroshot", code=2).stderr
    assert "@all-timm-in1k" in run_extract("models").stdout
