"""How a published or local CLIP sees images: preprocessing and QuickGELU by its entry, its config or its line."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
from open_clip.pretrained import get_pretrained_cfg

from closerlook_common.errors import UserError
from extract.libraries import prepare
from extract.libraries.open_clip.names import quick_gelu_mismatch
from extract.models.spec import ModelSpec
from extract.zoo.model_list import parse_line


def spec(line: str) -> ModelSpec:
    return parse_line(line, "models.txt:1")[0]


def test_every_published_pair_sees_images_as_its_entry_says() -> None:
    mismatched = 0
    for arch, tag in open_clip.list_pretrained():
        if quick_gelu_mismatch(arch, tag):
            mismatched += 1
            continue
        entry, record = (
            get_pretrained_cfg(arch, tag),
            prepare(spec(f"open_clip:{arch}/{tag}")).card.preprocessing,
        )
        assert (record["mean"], record["std"]) == (list(entry["mean"]), list(entry["std"]))
        assert (record["interpolation"], record["resize_mode"]) == (
            entry["interpolation"],
            entry["resize_mode"],
        )
    assert mismatched > 0


def test_a_file_for_a_published_config_needs_to_know_how_images_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"some")
    siglip = prepare(spec(f"open_clip:ViT-B-16-SigLIP checkpoint={file}")).card
    assert siglip.preprocessing["mean"] == [0.5] * 3
    assert siglip.extra["preprocessing_said_by"] == "all published weights of ViT-B-16-SigLIP"
    named = prepare(spec(f"open_clip:ViT-L-14/laion2b_s32b_b82k checkpoint={file}")).card
    assert named.preprocessing["mean"] == list(get_pretrained_cfg("ViT-L-14", "laion2b_s32b_b82k")["mean"])
    assert named.tag == ""
    with pytest.raises(UserError, match=r"published weights of ViT-L-14 .*in different ways.*ARCH/TAG"):
        prepare(spec(f"open_clip:ViT-L-14 checkpoint={file}"))


def test_quick_gelu_mismatches_are_errors_that_name_the_partner() -> None:
    with pytest.raises(UserError, match=r"name open_clip:ViT-B-32-quickgelu/openai instead"):
        prepare(spec("open_clip:ViT-B-32/openai"))
    with pytest.raises(UserError, match="quick_gelu=yes or quick_gelu=no"):
        prepare(spec("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k"))
    assert prepare(spec("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k quick_gelu=yes")).card.tag
    assert prepare(spec("open_clip:ViT-B-32-quickgelu/openai")).card.source == "wit"
