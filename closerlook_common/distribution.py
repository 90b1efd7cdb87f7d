"""The installed distribution: its version, and the command that adds an extra to it from where it came."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from closerlook_common.redaction import redact

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME = "closerlook"
VERSION = "0.1.0"
"""The version of everything in this distribution; ``pyproject.toml`` reads it here."""

_SOURCE = Path(__file__).resolve().parents[1]


def install_line(extra: str, *, source: Path = _SOURCE, found: Distribution | None = None) -> str:
    """Return the shell command that installs an extra of this distribution from where the distribution came.

    Parameters
    ----------
    extra
        Name of an extra of ``pyproject.toml``.
    source
        Folder that holds this package: a checkout, or ``site-packages``.
    found
        The installed distribution; looked up when None.

    Returns
    -------
    str
        ``pip install -e 'CHECKOUT[extra]'`` in a checkout; ``pip install`` with the folder, wheel or repository that
        pip recorded (``direct_url.json``); the extra's own requirements where that file or folder is gone. Only a
        distribution that came by its name from an index is asked for by name.
    """
    if is_checkout(source):
        return f"pip install -e {shlex.quote(f'{source}[{extra}]')}"
    if found is None:
        from importlib.metadata import PackageNotFoundError, distribution  # slow to import; only an error needs it

        try:
            found = distribution(NAME)
        except PackageNotFoundError:
            return _by_name(extra)
    text = found.read_text("direct_url.json")
    if text is None:
        return _by_name(extra)
    origin: Mapping[str, Any] = json.loads(text)
    address = str(origin.get("url", ""))
    if "vcs_info" in origin:
        commit = origin["vcs_info"].get("commit_id", "")
        address = f"{origin['vcs_info']['vcs']}+{address}" + (f"@{commit}" if commit else "")
        return _from_address(extra, address, origin)
    if urlsplit(address).scheme != "file":
        return _from_address(extra, address, origin)
    from urllib.request import url2pathname  # brings socket, which Python 3.13 cannot import in a deleted folder

    path = Path(url2pathname(urlsplit(address).path))
    if not path.exists():
        return _requirements(extra, found)
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{path}[{extra}]')}"


def is_checkout(folder: Path) -> bool:
    """Return whether a folder is a source tree of this distribution."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == NAME)


def _by_name(extra: str) -> str:
    return f"pip install '{NAME}[{extra}]'"


def _from_address(extra: str, address: str, origin: Mapping[str, Any]) -> str:
    folder = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
    return redact(f"pip install {shlex.quote(f'{NAME}[{extra}] @ {address}{folder}')}")


def _requirements(extra: str, found: Distribution) -> str:
    """Return a command that installs what an extra needs, without this distribution."""
    wanted = []
    for text in found.requires or ():
        requirement, _, marker = text.partition(";")
        if marker.replace('"', "'").strip() == f"extra == '{extra}'":
            wanted.append(shlex.quote(requirement.strip()))
    return f"pip install {' '.join(wanted)}" if wanted else _by_name(extra)
