"""Build the site: draw the gallery, execute the notebooks, write HTML. ``make docs`` calls it.

    python docs/build.py --demo demo           everything, from what 'make demo' left
    python docs/build.py --pages-only          the pages, without figures and outputs

The pages open from the folder, without a server or a network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def draw_gallery(cache: Path, results: Path, folder: Path) -> None:
    """Draw every figure as PNG into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    words = ["figures", str(results), "--cache", str(cache), "-o", str(folder), "--format", "png", "--quiet"]
    subprocess.run([sys.executable, "-m", "analyze", *words], cwd=ROOT, check=True)


def execute_notebooks(cache: Path, folder: Path, names: str = "*") -> None:
    """Execute the notebooks on a cache and keep them with their outputs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["CLOSERLOOK_CACHE"] = str(cache.resolve())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for path in sorted((ROOT / "notebooks").glob(f"{names}.ipynb")):
        print(f"executing {path.name}", flush=True)
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
        nbformat.write(notebook, folder / path.name)


def build(out: Path) -> None:
    """Write the HTML; a broken link or reference is an error."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = ["build", "--strict", "--quiet", "--site-dir", str(out.resolve())]
    subprocess.run([sys.executable, "-m", "mkdocs", *words], cwd=ROOT, check=True, env=environment)


def main() -> int:
    """Build the site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder with cache and results.parquet")
    parser.add_argument("--pages-only", action="store_true", help="no gallery, no outputs of notebooks")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the HTML")
    args = parser.parse_args()
    gallery, executed = ROOT / "docs" / "gallery", ROOT / "docs" / "executed"
    if args.pages_only:
        for folder in (gallery, executed):
            shutil.rmtree(folder, ignore_errors=True)
    else:
        cache, results = args.demo / "cache", args.demo / "results.parquet"
        if not results.exists():
            parser.error(f"{results} is missing: run 'make demo' first, or use --pages-only")
        draw_gallery(cache.resolve(), results.resolve(), gallery)
        execute_notebooks(cache, executed)
    build(args.out)
    print(f"open {args.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
