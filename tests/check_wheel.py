"""Build sdist and wheel, look into both, install each into a bare environment and run what it brings.

``--no-install`` stops after looking. Nothing but this distribution is installed: what the commands print here needs no
other package.
"""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.message import Message
from pathlib import Path

PACKAGES = ("closerlook", "closerlook_common", "cache_schema", "extract", "analyze")
ROOT = Path(__file__).resolve().parent.parent
RUNS = (
    ("closerlook", "--version"),
    ("closerlook", "--help"),
    ("closerlook", "completion", "--help"),
    ("closerlook", "cache", "--help"),
    ("extract", "--version"),
    ("extract", "--help"),
    ("analyze", "--version"),
    ("analyze", "--help"),
    ("python", "-m", "cache_schema", "--help"),
    ("python", "-c", "import closerlook; print(closerlook.__version__)"),
)
FIELDS = (
    "Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python", "Classifier", "Project-URL",
)  # fmt: skip


def main() -> int:
    """Return 0 where both hold what they should and run, else 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT], check=True, stdout=subprocess.DEVNULL
        )
        (wheel,) = (folder / "dist").glob("*.whl")
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        problems = [*_files(wheel, sdist), *_metadata(wheel)]
        if not problems and "--no-install" not in sys.argv:
            problems = [line for archive in (wheel, sdist) for line in _installed(archive, folder)]
    print("\n".join(problems) or "wheel and sdist: whole")
    return int(bool(problems))


def _files(wheel: Path, sdist: Path) -> list[str]:
    """Compare the packages in both archives with the tracked files."""
    tracked = set(subprocess.check_output(["git", "ls-files", "--", *PACKAGES], cwd=ROOT, text=True).splitlines())
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if name.partition("/")[0] in PACKAGES}
        others = {name.partition("/")[0] for name in archive.namelist()} - set(PACKAGES)
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    in_sdist = {name for name in names if name.partition("/")[0] in PACKAGES}
    found = []
    for what, have in (("wheel", in_wheel), ("sdist", in_sdist)):
        found += [f"not in the {what}: {name}" for name in sorted(tracked - have)]
        found += [f"in the {what}, but not tracked: {name}" for name in sorted(have - tracked)]
    found += [f"in the wheel beside the packages: {name}" for name in others if not name.endswith(".dist-info")]
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "Makefile", "tests/conftest.py"}
    wanted |= {"examples/own_metric.py", "examples/miniature/study.toml", "docs/index.md"}
    wanted |= {"CONTRIBUTING.md", "SECURITY.md"}
    found += [f"not in the sdist: {name}" for name in sorted(wanted - names)]
    return found if tracked else ["no file is tracked"]


def _metadata(wheel: Path) -> list[str]:
    found: Message
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = email.message_from_bytes(archive.read(name))
    problems = [f"no {field} in the metadata" for field in FIELDS if not found.get_all(field)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    extras = found.get_all("Provides-Extra") or []
    own = [extra for extra in extras if extra not in ("demo", "test", "test-laptop")]
    return problems + [f"README.md does not describe the extra {extra}" for extra in own if f"`{extra}`" not in readme]


def _installed(archive: Path, folder: Path) -> list[str]:
    """Install an archive alone into a fresh environment, outside the checkout, and run every command."""
    place = folder / archive.suffix[1:]
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    programs = place / "bin"
    pip = [programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", archive]
    subprocess.run(pip, check=True, cwd=folder)
    problems = []
    for program, *words in RUNS:
        done = subprocess.run(
            [programs / program, *words], capture_output=True, text=True, cwd=folder, check=False, timeout=120
        )
        if done.returncode or not done.stdout:
            problems.append(f"{archive.name}: {program} {' '.join(words)}: {done.stderr.strip() or 'no output'}")
    return problems


if __name__ == "__main__":
    raise SystemExit(main())
