"""Commands in processes of their own, examples of plug-ins, and a package that offers some."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import cache_schema

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
KINDS = {
    "metrics": "confidence_when_wrong",
    "detectors": "top-two",
    "calibrators": "shift",
    "figures": "ece_by_nll",
    "datasets": "holiday",
    "libraries": "edges",
}


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``closerlook`` in a process of its own: what one test plugs in is not there in the next."""
    command = [sys.executable, "-m", "closerlook", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def example(kind: str) -> Path:
    return EXAMPLES / f"own_{'library' if kind == 'libraries' else kind.removesuffix('s')}.py"


def package(folder: Path, points: str, **modules: str) -> dict[str, str]:
    """Put a package with entry points onto the path; returns the environment."""
    info = folder / "mine-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}


def with_package(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "closerlook", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)


def write_cache(path: Path) -> Path:
    """Write five models on a labelled set and an OOD set."""
    rng = np.random.default_rng(1)
    for index in range(5):
        model = cache_schema.ModelCard(id=f"m{index}", group="supervised-in1k", source="imagenet-1k")
        for dataset, role, n in (("val", "id", 120), ("far", "ood", 60)):
            labels = rng.integers(0, 6, n) if role == "id" else np.full(n, -1)
            logits = rng.normal(0, 2, (n, 6)).astype(np.float32)
            if role == "id":
                logits[np.arange(n), labels] += 1 + index / 2
            cache_schema.write_store(
                path,
                model=model,
                dataset=cache_schema.DatasetCard(id=dataset, role=role, class_space="six", n_classes=6),
                logits=logits,
                labels=labels,
                image_ids=[f"{dataset}/{i}.png" for i in range(n)],
            )
    return path
