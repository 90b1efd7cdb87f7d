"""Run the fast tests of the laptop with the lowest versions that ``pyproject.toml`` allows.

    python tests/minimum_versions.py            # in an environment of its own, .venv-minimum

The bounds of the base install are pinned by a constraints file; what only the tests need is as new as it may be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-minimum"
OF_THAT_TIME = ("pyparsing<3.3",)
"""What the lowest versions were made for: newer ones warn of what matplotlib 3.9 calls."""


def lowest(requirements: list[str]) -> list[str]:
    """Return ``name==version`` of the lower bound of each requirement."""
    pins = []
    for text in requirements:
        found = re.match(r"([A-Za-z0-9_.-]+)>=([0-9][0-9a-z.]*)", text)
        if found is None:
            raise SystemExit(f"{text!r} in pyproject.toml has no lower bound")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


def fast_tests() -> list[str]:
    """Return the fast tests that need no torch, as the Makefile lists them."""
    listed = re.search(r"^FAST := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert listed is not None
    return [path for path in listed[1].replace("\\\n", " ").split() if "test_extract" not in path]


def main() -> int:
    """Install and run; the exit code is that of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = FOLDER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    pins = FOLDER / "constraints.txt"
    pins.write_text("\n".join([*lowest(project["dependencies"]), *OF_THAT_TIME]) + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", pins, "-e", ".[test-laptop]"], check=True, cwd=ROOT)
    print(pins.read_text())
    command = [python, "-m", "pytest", "-q", "-n", "2", *fast_tests()]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
