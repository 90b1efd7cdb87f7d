"""Constants of open_clip without open_clip, which takes seconds to import and which a list of timm's models lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest

from extract.classes.constants import constants_of
from extract.classes.prompts import SLOT, prompt_set
from extract.classes.spaces import class_space

LOADED = """
import json, sys
from extract.classes.prompts import prompt_set
from extract.classes.spaces import class_space
sets = [list(prompt_set(name).templates) for name in ("openai-80", "openai-7")]
names = list(class_space("imagenet-1k").names)
print(json.dumps([sets, names, sorted({"open_clip", "transformers"} & set(sys.modules))]))
"""


def test_they_are_open_clips_and_it_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=120)
    sets, names, loaded = json.loads(done.stdout)
    assert loaded == []
    theirs = (open_clip.OPENAI_IMAGENET_TEMPLATES, open_clip.SIMPLE_IMAGENET_TEMPLATES)
    assert sets == [[template(SLOT) for template in templates] for templates in theirs]
    assert names == list(open_clip.IMAGENET_CLASSNAMES)
    assert sets[0] == list(prompt_set("openai-80").templates)
    assert names == list(class_space("imagenet-1k").names)


def test_without_the_file_the_package_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "older_package").mkdir()
    (tmp_path / "older_package" / "__init__.py").write_text("NAMES = ('a', 'b')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert constants_of("older_package", "zero_shot_metadata").NAMES == ("a", "b")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        constants_of("no_such_package", "zero_shot_metadata")
