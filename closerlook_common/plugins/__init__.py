"""Plug-ins: metrics, detectors, calibrators, datasets, model libraries and figures from outside the packages.

They come from installed packages (entry points ``closerlook.KIND``) and from files that the user names (``--plugins``).
A file is Python code that is run: only what a command line or a call names is loaded, never what a list, a study or a
cache names. Registries take what there is with ``attach``; each accepts or refuses an item by itself.

A file's module is a submodule of this package, so that worker processes find it when they unpickle what it defines.
"""

from closerlook_common.plugins.files import PluginFile, adopt, attach, clear_inherited, load_files, loaded_files
from closerlook_common.plugins.registry import KINDS, Plugin, digest_of, origin_of, plugin_names

__all__ = [
    "KINDS",
    "Plugin",
    "PluginFile",
    "adopt",
    "attach",
    "clear_inherited",
    "digest_of",
    "load_files",
    "loaded_files",
    "origin_of",
    "plugin_names",
]
