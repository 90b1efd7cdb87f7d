"""What the base install runs: it brings neither torch nor what reads addresses, whatever is installed here besides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ONLY_BASE = """
import importlib.metadata as metadata, re, sys

def needed(name, found):
    for line in metadata.requires(name) or []:
        if "extra ==" not in line and not re.search(r"python_version|sys_platform|platform_system", line):
            other = re.match(r"[\\w.-]+", line).group().lower().replace("_", "-")
            if other not in found:
                found.add(other)
                try:
                    needed(other, found)
                except metadata.PackageNotFoundError:
                    pass
    return found

kept = needed("closerlook", {"closerlook"})
modules = metadata.packages_distributions()
BLOCKED = {m for m, owners in modules.items() if not {o.lower().replace("_", "-") for o in owners} & kept}
BLOCKED -= {"_pytest", "pip", "setuptools"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
assert {"fsspec", "aiohttp"} <= BLOCKED or "fsspec" not in modules
"""
OF_ADDRESSES = (
    "cache_schema.copying.pull", "cache_schema.copying.push", "cache_schema.copying.registry",
    "cache_schema.reading.places.files", "cache_schema.reading.places.hdf5",
    "cache_schema.reading.places.other_files", "cache_schema.reading.places.remote", "cache_schema.reading.places.wire",
)  # fmt: skip
"""Modules that only a cache at an address needs: they import what the extra 'remote' brings."""

WALK = """
import importlib, json, pkgutil
missing = []
for package in ("closerlook_common", "cache_schema", "analyze"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError:
                missing.append(module.name)
import closerlook
for name in closerlook.__all__:
    if name not in ("DatasetSpec", "Extraction", "ModelSpec", "load_model", "run"):
        getattr(closerlook, name)
print(json.dumps(missing))
"""


def run(code: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code where only the base install's packages can be imported."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-c", start + ONLY_BASE + code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd)


def test_all_modules_import_but_those_of_addresses(tmp_path: Path) -> None:
    done = run(WALK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) <= set(OF_ADDRESSES)


def test_the_readmes_five_minutes_and_its_questions_run(tmp_path: Path) -> None:
    """From arrays to a summary, in Python and by commands."""
    done = run(
        """
import numpy as np
import closerlook
labels, noise = np.arange(1000) % 10, np.random.default_rng(0).normal(size=(1000, 10))
np.savez("val.npz", logits=noise + 3 * np.eye(10)[labels], labels=labels)
np.savez("sun.npz", logits=noise)
from analyze.cli import main as analyze
from cache_schema.cli import main as stores
words = ["--model", "my-model", "--cache", "cache"]
assert stores(["import", "val.npz", "--dataset", "my-val", *words]) == 0
assert stores(["import", "sun.npz", "--dataset", "sun", "--role", "ood", *words]) == 0
for command in (
    ["metrics", "cache", "-o", "r.parquet"], ["table", "r.parquet"],
    ["report", "r.parquet", "--cache", "cache", "-o", "r.html"],
    ["ood", "cache", "--detectors", "msp,energy", "-o", "r.parquet"], ["summarize", "cache"], ["audit", "r.parquet"],
):
    assert analyze(command) == 0, command
results = closerlook.evaluate("cache")
print(results.best("ece"))
""",
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("push", "cache", "file:///nowhere"), ("pull", "file:///nowhere", "cache")])
def test_what_needs_an_extra_names_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "cache").mkdir()
    done = run("from cache_schema.cli import main\nsys.exit(main(sys.argv[1:]))\n", tmp_path, *words)
    assert done.returncode == 2
    assert "this command needs fsspec: pip install" in done.stderr.strip().splitlines()[-1]
