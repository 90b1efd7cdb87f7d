"""Libraries of models: none is named outside its folder, and libraries from outside the package are used like ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from closerlook_common.errors import UserError
from extract.libraries import Library, load, prepare, register, registry
from extract.models.base import Built, Prepared
from extract.models.spec import Line, ModelSpec
from extract.zoo.lists import list_names, named_list
from extract.zoo.model_list import parse_line

ROOT = Path(__file__).parents[2]

MODULES = {"timm", "open_clip"}
"""Import names of the packages behind the libraries, besides the libraries' own names."""

ALLOWED = {
    "extract/libraries/registry.py": "the list of libraries",
    "extract/classes/imagenet_labels.py": "WordNet's synonyms of ImageNet's classes lie in timm's wheel",
    "extract/classes/names.py": "ImageNet's class names lie in open_clip's and timm's wheels; no model is run",
    "extract/classes/orders.py": "two ways to sort class folders are known by these names",
    "extract/classes/prompts.py": "the templates of the CLIP paper lie in open_clip's wheel; no model is run",
    "extract/classes/spaces.py": "ImageNet's class names lie in open_clip's and timm's wheels; no model is run",
    "extract/planning/class_order.py": "two ways to sort class folders are known by these names",
    "extract/passes/provenance.py": "torchvision's version is recorded for every store",
    "extract/datasets/maps/__init__.py": "lists of ImageNet-A, -R and ReaL lie in timm's wheel, read as files",
    "cache_schema/format/model_names/": "the laptop reads cards off names too, without any library",
    "closerlook_common/console/command_line.py": "which extra installs a missing module",
    "analyze/results/published.py": "layouts of published tables",
    "analyze/commands/import_results.py": "layouts of published tables",
}
"""File, or folder ending in a slash -> why it names a library."""


def named_libraries(file: Path) -> Iterator[str]:
    """Yield what in a file depends on one library: imports of it, and its name as a value in code."""
    names = MODULES | set(registry.BUILT_IN) - {"python"}  # which is also the language
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [f"line {node.lineno}: {node.value!r}"] if node.value in names else []
            continue
        else:
            continue
        for module in modules:
            inner = module.removeprefix("extract.libraries.")
            if inner.partition(".")[0] in names and (inner != module or module.partition(".")[0] in MODULES):
                yield f"line {node.lineno}: import {module}"


def package_files() -> Iterator[tuple[str, Path]]:
    packages = {"cache_schema", "extract", "analyze", "closerlook_common"}
    for folder in sorted(folder for folder in ROOT.iterdir() if folder.name in packages):
        for file in sorted(folder.rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file


def test_no_file_outside_a_library_names_it() -> None:
    found = {}
    for name, file in package_files():
        inside = re.match(r"extract/libraries/(\w+)/", name)
        if inside:
            continue
        if uses := list(named_libraries(file)):
            found[name] = uses
    assert {name: uses for name, uses in found.items() if not name.startswith(tuple(ALLOWED))} == {}
    assert all(any(name.startswith(allowed) for name in found) for allowed in ALLOWED)


def test_a_library_imports_no_other() -> None:
    """A shared package is no other library: open_clip's towers are timm's, and its licences stand there."""
    for name, file in package_files():
        if inside := re.match(r"extract/libraries/(\w+)/", name):
            text = file.read_text(encoding="utf-8")
            others = set(re.findall(r"from extract\.libraries\.(\w+)", text)) & set(registry.BUILT_IN)
            assert others <= {inside[1]}, name


def test_naming_a_library_is_noticed(tmp_path: Path) -> None:
    for text in ('if library == "timm": pass', "import open_clip", "from extract.libraries.timm import heads"):
        (tmp_path / "file.py").write_text(text)
        assert list(named_libraries(tmp_path / "file.py")), text
    (tmp_path / "file.py").write_text('"""As timm does it."""\nfrom extract.libraries import registry')
    assert not list(named_libraries(tmp_path / "file.py"))


# ---- from outside


class Tiny(Library):
    """Models of another library under names of their own: what a plug-in may do in a few lines."""

    name = "tiny"
    examples = (("tiny:vit", "a small one"),)

    def _inner(self, spec: ModelSpec) -> ModelSpec:
        return replace(spec, library="timm", name="test_vit", options={**spec.options, "allow_random": "yes"})

    def resolve(self, line: Line) -> list[ModelSpec]:
        return [line.spec(id=f"tiny-{line.name}")]

    def lists(self) -> dict[str, Any]:
        return {"all-tiny": lambda: ["vit"]}

    def prepare(self, spec: ModelSpec) -> Prepared:
        inner = registry.get("timm").prepare(self._inner(spec))
        card = replace(inner.card, library=self.name, name=spec.name, id=spec.id)
        return replace(inner, spec=spec, card=card)

    def build(self, prepared: Prepared) -> Built:
        return registry.get("timm").build(replace(prepared, spec=self._inner(prepared.spec)))


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_a_registered_library_is_used_like_ours(run_extract: Any) -> None:
    library = Tiny()
    register(library)
    register(library)  # again does nothing
    assert "tiny" in registry.names()
    (spec,) = parse_line("tiny:vit id=mine seed=3")
    model = load(prepare(spec))
    assert (model.card.library, model.card.id, model.feature_width) == ("tiny", "mine", 64)
    pixels = torch.zeros((2, 160, 160, 3), dtype=torch.uint8)
    logits = model.forward(pixels).logits
    assert logits is not None
    assert logits.shape == (2, 1000)
    assert "all-tiny" in list_names()
    assert named_list("all-tiny") == ["tiny:vit"]
    text = run_extract("help", "models").stdout
    assert "tiny:vit" in text
    with pytest.raises(UserError, match="no option 'crop'"):
        parse_line("tiny:vit crop=1")


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (type("Other", (Tiny,), {"name": "timm"})(), "timm exists already"),
        (type("Other", (Tiny,), {"name": "a b:c"})(), "name of letters"),
        (object(), "name of letters"),
    ],
)
def test_what_cannot_be_registered(library: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register(library)


def installed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint("foreign", value, registry.GROUP)
    monkeypatch.setattr(registry, "_installed", lambda: {"foreign": point})
    registry._load.cache_clear()


def test_an_installed_library_is_loaded_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "extract.libraries.timm:TimmLibrary")
    assert "foreign" in registry.names()
    assert registry.get("foreign").distribution == "timm"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_anywhere", "cannot be loaded"),
        ("extract.models.spec", "is not an extract.libraries.Library"),
        ("extract.libraries.registry:nothing", "cannot be loaded"),
    ],
)
def test_a_broken_library_costs_a_line_and_no_other_model(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch, run_extract: Any
) -> None:
    installed(monkeypatch, value)
    assert parse_line("timm:test_vit.r160_in1k")
    with pytest.raises(UserError, match=message) as caught:
        parse_line("foreign:vit", "models.txt:1")
    assert "\n" not in str(caught.value)
    listed = run_extract("models", "test_vit.*", "--no-parameters")
    assert "timm:test_vit.r160_in1k" in listed.stdout
    assert message in listed.stderr
