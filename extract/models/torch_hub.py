"""Weight files that libraries publish under an address: kept in torch's cache folder, under the address's last part."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import torch


def hub_file(url: str, name: str = "") -> Path:
    """Return where torch keeps the file of an address, whether or not it is there.

    Parameters
    ----------
    url
        The address.
    name
        Of the file; the last part of the address where it is empty.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / (name or Path(urlparse(url).path).name)


def fetched(url: str, target: Path) -> Path:
    """Download a file unless it is there, and return it."""
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=False)
    return target
