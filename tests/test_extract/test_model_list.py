"""Model lists: grammar, wildcards, and what a mistake is answered with, before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
from timm.models import get_pretrained_cfg

from closerlook_common.errors import UserError
from extract.libraries import registry
from extract.libraries.named import NamedLibrary
from extract.libraries.timm.names import UNTRAINED_HEADS
from extract.models.spec import COMMON_OPTIONS
from extract.zoo.model_list import parse_line, read_model_list


def listed(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "models.txt").write_text(text, encoding="utf-8")
    return [f"{spec.library}:{spec.name}" for spec in read_model_list(tmp_path / "models.txt")]


def test_grammar(tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_text(
        "\ufeff# a comment\n"
        "\n"
        "timm:resnet50.a1_in1k   # and another\n"
        "open_clip:ViT-B-32-quickgelu/openai id='CLIP, small' samples_seen=12.8e9 source=wit\n"
        "timm:test_vit checkpoint=weights/a.safetensors id=mine group=supervised-in1k\n",
        encoding="utf-8",
    )
    first, second, third = read_model_list(tmp_path / "models.txt")
    assert (first.library, first.name, first.id, dict(first.options)) == (
        "timm",
        "resnet50.a1_in1k",
        first.name,
        {},
    )
    assert (second.id, second.options["source"], second.number("samples_seen")) == (
        "CLIP, small",
        "wit",
        12_800_000_000,
    )
    assert third.checkpoint == tmp_path / "weights" / "a.safetensors"
    assert (third.name, third.id, third.options) == ("test_vit", "mine", {"group": "supervised-in1k"})
    assert third.where.endswith("models.txt:5")
    assert len({first, second, third}) == 3


def test_a_comment_follows_a_space(tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_text(
        "timm:test_vit checkpoint=run#7/w.pth id=vit#7 classes=pets  # the seventh\n"
        "timm:test_resnet id='a # b'# glued to the quotation\n".replace("'#", "' #")
    )
    first, second = read_model_list(tmp_path / "models.txt")
    assert (first.id, first.checkpoint, first.options["classes"]) == ("vit#7", tmp_path / "run#7" / "w.pth", "pets")
    assert second.id == "a # b"


def test_paths_are_relative_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "m.txt").write_text("open_clip:mine config=c.json checkpoint=../w.pt\ntimm:local-dir:saved\n")
    mine, saved = read_model_list(tmp_path / "deep" / "m.txt")
    assert mine.options["config"] == str(tmp_path / "deep" / "c.json")
    assert mine.checkpoint is not None
    assert mine.checkpoint.resolve() == (tmp_path / "w.pt").resolve()
    assert saved.name == f"local-dir:{tmp_path / 'deep' / 'saved'}"
    assert saved.id == "saved"


def test_a_bare_timm_name_takes_the_default_tag_unless_weights_are_given() -> None:
    assert parse_line("timm:resnet50")[0].name == f"resnet50.{get_pretrained_cfg('resnet50').tag}"
    assert parse_line("timm:resnet50 checkpoint=w.pt")[0].name == "resnet50"
    assert parse_line("timm:test_vit allow_random=yes")[0].name == "test_vit"


def test_wildcards_stand_for_every_match(tmp_path: Path) -> None:
    found = listed(tmp_path, "open_clip:*/laion2b*\n")
    pairs = [f"open_clip:{a}/{t}" for a, t in open_clip.list_pretrained() if t.startswith("laion2b")]
    assert set(found) == {p for p in pairs if p != "open_clip:roberta-ViT-B-32/laion2b_s12b_b32k"}
    assert listed(tmp_path, "timm:resnet50.a?_in1k\n") == [f"timm:resnet50.{t}_in1k" for t in ("a1", "a2", "a3", "am")]
    (spec,) = parse_line("timm:resnet18.a1* precision=bf16")
    assert spec.options == {"precision": "bf16"}
    assert spec.id == "resnet18.a1_in1k"


def test_wildcards_leave_out_what_could_only_fail() -> None:
    openai = {spec.name for spec in parse_line("open_clip:*/openai")}
    assert "ViT-B-32-quickgelu/openai" in openai
    assert "ViT-B-32/openai" not in openai
    heads = {get_pretrained_cfg(spec.name).num_classes > 0 for spec in parse_line("timm:vit_base_patch16_*")}
    assert heads == {True}


def test_every_published_name_can_be_listed() -> None:
    libraries = [library for library in registry.every()[0] if isinstance(library, NamedLibrary)]
    assert {library.name for library in libraries} >= {"timm", "open_clip"}
    for library in libraries:
        for name in set(library.published()) - set(UNTRAINED_HEADS):
            assert parse_line(f"{library.name}:{name}")[0].name == name
    assert {entry.name for entry in registry.get("timm").entries()} == set(timm.list_models(pretrained=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resnet50", "is not LIBRARY:NAME"),
        ("tim:resnet50", "no library 'tim'.*did you mean timm"),
        ("timm:resnt50.a1_in1k", "did you mean.*resnet50.a1_in1k"),
        ("timm:resnet50.a9_in1k", "did you mean resnet50.ra_in1k"),
        ("timm:convnext_tiny_in22ft1k", "renamed.*convnext_tiny.fb_in22k_ft_in1k"),
        ("open_clip:ViT-B-32/opnai", "did you mean.*ViT-B-32/openai"),
        ("open_clip:ViT-B-32", r"name one of its tags \(openai, "),
        ("open_clip:ViT-S-32-alt", "no published weights: give checkpoint="),
        ("timm:nothing_like_this_*", "no pretrained model of timm matches"),
        ("timm:resnet50* id=x", "id= is for one model"),
        ("timm:resnet50* checkpoint=x", "checkpoint= is for one model"),
        ("timm:resnet50 chekpoint=x", "no option 'chekpoint'.*did you mean checkpoint"),
        ("timm:resnet50.a1_in1k quick_gelu=yes", "quick_gelu= is an option of open_clip, not of timm"),
        ("timm:resnet50 source", "is not key=value"),
        ("timm:resnet50 source=", "has no value"),
        ("timm:resnet50 source=a source=b", "given twice"),
        ("timm:resnet50 source='a", "quotation is not closed"),
    ],
)
def test_mistakes_are_answered_with_the_mend(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_line(line, "models.txt:3")
    assert str(caught.value).startswith("models.txt:3: ")
    assert "\n" not in str(caught.value)


def test_lists_are_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models.txt:2: the id 'resnet50.a1_in1k' is taken by .*models.txt:1; .*id="):
        listed(tmp_path, "timm:resnet50.a1_in1k\ntimm:resnet50.a1_in1k\n")
    with pytest.raises(UserError, match="no model in this list"):
        listed(tmp_path, "# nothing\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_model_list(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_model_list(tmp_path / "binary.txt")


def test_named_lists_are_opened_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        "two": ["# ours", "timm:resnet18.a1_in1k group=supervised-in1k", "@one"],
        "one": ["timm:resnet50.a1_in1k"],
    }
    lists["loop"] = ["@loop"]
    monkeypatch.setattr("extract.zoo.lists.named_list", lambda name: lists[name])
    assert listed(tmp_path, "timm:test_vit.r160_in1k\n@two  # and more\n") == [
        "timm:test_vit.r160_in1k", "timm:resnet18.a1_in1k", "timm:resnet50.a1_in1k"
    ]  # fmt: skip
    assert [spec.where for spec in read_model_list("@two")] == ["@two:2", "@one:1"]
    with pytest.raises(UserError, match="names itself"):
        read_model_list("@loop")
    with pytest.raises(UserError, match="must be alone"):
        listed(tmp_path, "@two id=x\n")


@pytest.mark.parametrize(
    ("line", "read", "message"),
    [
        ("allow_random=perhaps", lambda spec: spec.flag("allow_random"), "neither yes nor no"),
        ("samples_seen=many", lambda spec: spec.number("samples_seen"), "not a whole number"),
        ("samples_seen=1.5", lambda spec: spec.number("samples_seen"), "not a whole number"),
        ("mean=a,b", lambda spec: spec.numbers("mean"), "not a list of numbers"),
    ],
)
def test_values_are_checked(line: str, read: object, message: str) -> None:
    (spec,) = parse_line(f"timm:resnet50.a1_in1k {line}", "here")
    assert callable(read)
    with pytest.raises(UserError, match=message):
        read(spec)


def test_options_are_described() -> None:
    for library in registry.every()[0]:
        assert all({**COMMON_OPTIONS, **library.options}.values())
        assert not set(library.options).intersection(COMMON_OPTIONS)
        assert {*library.path_options, *library.forward_options, *library.forward_files} <= set(library.options)


def test_reading_a_list_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import extract.zoo.model_list, extract.classes.prompts;"
    code += "import extract.preprocess, extract.libraries, extract.models.base"
    code += "; extract.classes.prompts.prompt_set('photo-1')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_all_typos_of_a_list_are_stated_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        listed(tmp_path, "timm:resnt50\ntimm:test_vit.r160_in1k\ntim:resnet50\ntimm:test_vit chekpoint=a.pth\n")
    message = str(caught.value)
    assert "\n" not in message
    for text in ("models.txt:1", "did you mean timm?", "models.txt:3", "did you mean checkpoint?", "models.txt:4"):
        assert text in message


def test_an_unknown_open_clip_name_hints_at_a_configuration() -> None:
    for line in ("open_clip:my-clip checkpoint=w.pt", "open_clip:my-clip"):
        with pytest.raises(
            UserError, match=r"open_clip has no model 'my-clip'.*config=FILE\.json, or open_clip:local-dir"
        ):
            parse_line(line, "models.txt:1")


def test_published_weights_without_a_trained_head_are_refused() -> None:
    from extract.zoo.lists import list_names, named_list

    name = "timm:resmlp_12_224.fb_dino"
    with pytest.raises(UserError, match="have no trained classifier"):
        parse_line(name, "models.txt:1")
    assert parse_line(f"{name} num_classes=0", "models.txt:1")[0].name == "resmlp_12_224.fb_dino"
    assert parse_line(f"{name} checkpoint=w.pth", "models.txt:1")[0].checkpoint is not None
    assert "resmlp_12_224.fb_dino" not in {spec.name for spec in parse_line("timm:resmlp_12*", "models.txt:1")}
    assert not [line for chosen in list_names() for line in named_list(chosen) if "fb_dino" in line]
