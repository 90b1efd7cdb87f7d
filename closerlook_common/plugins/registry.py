"""What was plugged in, by kind and name; and who is notified."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.redaction import printable, redact

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KINDS = ("libraries", "datasets", "metrics", "detectors", "calibrators", "figures")
"""Kinds of plug-ins. ``closerlook.KIND`` is the group of entry points, ``KIND`` in capitals the tuple in a file."""


@dataclass(frozen=True)
class Plugin:
    """One item that was plugged in.

    Attributes
    ----------
    kind
        Of ``KINDS``.
    item
        The object.
    origin
        ``mine.py``, or ``package my-package 1.2``.
    digest
        Of the file's content, or of the package's name and version and the file that defines the item.
    """

    kind: str
    item: Any
    origin: str
    digest: str

    @property
    def name(self) -> str:
        """The item's name; empty where it has none."""
        name = getattr(self.item, "name", "")
        return name if isinstance(name, str) else ""


Sink = Callable[[Plugin], None]

_SINKS: dict[str, Sink] = {}
_LOADED: dict[str, list[Plugin]] = {kind: [] for kind in KINDS}
_KNOWN: dict[tuple[str, str], Plugin] = {}


def attach(kind: str, add: Sink, *, installed: bool = True) -> None:
    """Name the registry of a kind: it is given what was loaded before, the installed packages' items, and what follows.

    Parameters
    ----------
    kind
        Of ``KINDS``.
    add
        Takes a plug-in or raises UserError. An installed package's item that is refused costs one line on standard
        error; a file's is raised to the code that loads it.
    installed
        Whether to load what installed packages offer now; a registry that loads them when they are used does not.
    """
    _SINKS[kind] = add
    for plugin in _installed(kind) if installed else ():
        try:
            _give(plugin)
        except CloserlookError as error:
            report(f"{plugin.origin} offers {plugin.name or 'something'} to closerlook.{kind}", error)
    for plugin in _LOADED[kind]:
        _give(plugin)


def offer(plugins: Iterable[Plugin]) -> None:
    """Add items of a file: registries that are attached take them now, the others once they are.

    Raises
    ------
    UserError
        A registry refuses one.
    """
    for plugin in plugins:
        if plugin.kind in _SINKS:
            _give(plugin)
        _LOADED[plugin.kind].append(plugin)


def _give(plugin: Plugin) -> None:
    if not plugin.name:
        raise UserError(f"plug-in {plugin.origin}: {plugin.item!r} among its {plugin.kind} has no name")
    known = _KNOWN.get((plugin.kind, plugin.name))
    if known is not None and known.digest == plugin.digest:
        return
    if known is not None:
        raise UserError(
            f"plug-in {plugin.origin}: {plugin.name!r} among its {plugin.kind} is there already, of {known.origin};"
            " give it another name"
        )
    try:
        _SINKS[plugin.kind](plugin)
    except UserError as error:
        raise UserError(f"plug-in {plugin.origin}: {error}") from error
    _KNOWN[plugin.kind, plugin.name] = plugin


def origin_of(kind: str, name: str) -> str:
    """Return where an item of a registry comes from; empty for those of this package."""
    known = _KNOWN.get((kind, name))
    return "" if known is None else known.origin


def digest_of(kind: str, name: str) -> str:
    """Return the digest of a plugged-in item, which keys of numbers hold; empty for items of this package."""
    known = _KNOWN.get((kind, name))
    return "" if known is None else known.digest


def plugin_names(kind: str) -> tuple[str, ...]:
    """Return the names of the items of a kind that were plugged in."""
    return tuple(name for known, name in _KNOWN if known == kind)


def report(what: str, error: BaseException) -> None:
    """Print one line on a plug-in that is left out."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    print(printable(redact(f"plug-in left out: {what}: {reason}")), file=sys.stderr)


def _installed(kind: str) -> list[Plugin]:
    """Return the items that installed packages offer, loaded; one that cannot be loaded costs a line."""
    from importlib.metadata import entry_points  # a third of the time that '--help' takes

    found: list[Plugin] = []
    for point in entry_points(group=f"closerlook.{kind}"):
        origin = f"package {point.dist.name} {point.dist.version}" if point.dist is not None else "a package"
        try:
            value = _loaded(point)
        except UserError as error:
            report(f"{origin}, entry point {point.name} of closerlook.{kind}", error)
            continue
        items = value if isinstance(value, tuple | list) else (value,)
        found += [Plugin(kind, item, origin, _package_digest(point, item)) for item in items]
    return found


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever the code of a package raises
        raise UserError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _package_digest(point: EntryPoint, item: Any) -> str:
    """Return a digest that changes with the version of the package, and with the file in a checkout of it."""
    parts = [point.value, point.dist.name if point.dist is not None else "", point.dist.version if point.dist else ""]
    module = sys.modules.get(getattr(item, "__module__", "") or "") or sys.modules.get(point.module)
    try:
        parts.append(hashlib.sha256(Path(inspect.getfile(module)).read_bytes()).hexdigest() if module else "")
    except (OSError, TypeError):
        parts.append("")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
