"""Which names the model libraries know: with weights, bare, renamed, matched by wildcards."""

from __future__ import annotations

import fnmatch
from functools import cache

from cache_schema.errors import UserError, nearest


@cache
def registry(library: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that have weights (``arch.tag``, ``arch/tag``), and the bare architectures.

    timm's towers without a classifier and open_clip's pairs whose config contradicts the weights (QuickGELU)
    are among the names: they can be asked for one by one, and a wildcard leaves them out.
    """
    if library == "timm":
        import timm

        return tuple(timm.list_models(pretrained=True)), tuple(timm.list_models())
    import open_clip

    return tuple(f"{arch}/{tag}" for arch, tag in open_clip.list_pretrained()), tuple(open_clip.list_models())


def quick_gelu_mismatch(architecture: str, tag: str) -> bool:
    """Say whether a config's activation is another than the one that the weights were trained with."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    entry = get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture) or {}
    return bool(entry) and bool(entry.get("quick_gelu", False)) != bool(config.get("quick_gelu", False))


def _has_head(library: str, name: str) -> bool:
    if library == "timm":
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(name)
        return config is not None and config.num_classes > 0
    return not quick_gelu_mismatch(*name.split("/", 1))


def matching_names(library: str, pattern: str, where: str) -> list[str]:
    """Return the names with weights and a head that a pattern matches, or say that there is none."""
    names = registry(library)[0]
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern) and _has_head(library, name)]
    if not found:
        raise UserError(
            f"{where}: no pretrained model of {library} matches {pattern!r}"
            f"{nearest(pattern.replace('*', ''), names)}"
        )
    return found


def full_name(library: str, name: str, where: str, *, free: bool) -> str:
    """Return the full name, the default tag filled in where weights are to come from the library."""
    tagged, bare = registry(library)
    if name in tagged:
        return name
    if library == "timm":
        from timm.models import get_deprecated_models, get_pretrained_cfg

        renamed = get_deprecated_models().get(name)
        if renamed:
            raise UserError(f"{where}: timm has renamed {name} to {renamed}; did you mean {renamed}?")
        if name in bare:
            tag = getattr(get_pretrained_cfg(name), "tag", None)
            return f"{name}.{tag}" if tag and not free and f"{name}.{tag}" in tagged else name
    elif name in bare:
        if free:
            return name
        tags = [other.split("/", 1)[1] for other in tagged if other.split("/", 1)[0] == name]
        hint = (
            f"name one of its tags ({', '.join(tags)})"
            if tags
            else "it has no published weights: give checkpoint=FILE"
        )
        raise UserError(f"{where}: {name} says no weights; {hint}")
    raise UserError(f"{where}: {library} has no model {name!r}{nearest(name, (*tagged, *bare))}")
