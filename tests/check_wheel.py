"""Build the wheel and compare its file list with the tracked files of the three packages."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("cache_schema", "extract", "analyze")
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return 0 where the wheel holds exactly the tracked files, else 1."""
    tracked = set(subprocess.check_output(["git", "ls-files", "--", *PACKAGES], cwd=ROOT, text=True).splitlines())
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(ROOT)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            packed = {name for name in archive.namelist() if name.partition("/")[0] in PACKAGES}
    for name in sorted(tracked - packed):
        print(f"missing from the wheel: {name}")
    for name in sorted(packed - tracked):
        print(f"in the wheel but not tracked: {name}")
    print(f"wheel: {len(packed)} files, {len(tracked)} tracked")
    return int(tracked != packed or not tracked)


if __name__ == "__main__":
    raise SystemExit(main())
