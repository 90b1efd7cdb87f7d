"""Pages of the site that are made from the code: registries, command lines, settings, files kept elsewhere.

MkDocs calls ``on_files`` once a build. Nothing here is written to disk.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import files_elsewhere  # noqa: E402
import gallery  # noqa: E402
import programs  # noqa: E402
import registries  # noqa: E402
import walks  # noqa: E402

CALIBRATORS_HERE = "[table of calibrators]: # (The build of the site puts the table of the registry here.)"

PAGES = {
    "reference/commands.md": programs.commands,
    "reference/model-lists.md": programs.model_lists,
    "reference/datasets.md": programs.datasets,
    "reference/settings.md": programs.settings,
    "reference/metrics.md": registries.metrics,
    "reference/detectors.md": registries.detectors,
    "reference/recipes.md": registries.recipes,
    "reference/specification.md": files_elsewhere.specification,
    "benchmarks.md": files_elsewhere.benchmarks,
    "changelog.md": files_elsewhere.changelog,
    "gallery.md": gallery.page,
}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, the gallery's figures and the notebooks."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    for picture in gallery.pictures():
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    for notebook in walks.notebooks():
        content, images = walks.page(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=content))
        for name, data in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=data))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables of the benchmarks and of the calibrators where a page names them: they are typed once."""
    return files_elsewhere.with_tables(markdown.replace(CALIBRATORS_HERE, registries.calibrators()))


def on_page_content(html: str, **_: Any) -> str:
    """Let names of tests break at underscores in narrow columns, and pictures open at their own size."""
    html = re.sub(
        r"<code>test_\w+\.py::\w+</code>", lambda found: re.sub(r"(?<=[_:])(?=[^_:])", "<wbr>", found[0]), html
    )
    return re.sub(r'(<img [^>]*?src="([^"]+\.png)"[^>]*>)', r'<a class="picture" href="\2">\1</a>', html)


def on_post_build(config: Any) -> None:
    """Write the search index as a script too: a page that is opened from a folder cannot read JSON files."""
    folder = Path(config["site_dir"]) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
