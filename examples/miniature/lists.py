"""The miniature's ``models.txt``, with comments that teach the grammar of model lists."""

from __future__ import annotations

from collections.abc import Mapping

from cache_schema.format.records import GROUPS
from examples.miniature.recipes import FULL, Recipe, Size
from examples.miniature.shapes import CLASS_SPACE, CLASSES

_HEADER = """\
# The models of the miniature study ('python -m examples.miniature' builds it). One model a line:
#
#     LIBRARY:NAME key=value ...
#
# LIBRARY is timm or open_clip. '#' starts a comment, a value with blanks is quoted, relative paths are
# relative to this file. Where the libraries know the weights, the name is enough; wildcards mean several:
#
#     timm:resnet50.a1_in1k
#     open_clip:ViT-B-32/laion2b_s34b_b79k
#     open_clip:*/laion2b*
#
# Weights of your own: the architecture, the file, and for a classifier what its classes are:
#
#     timm:resnet50 checkpoint=mine.safetensors id=my-resnet               # 1,000 outputs are ImageNet's
#     timm:resnet50 checkpoint=pets.safetensors id=my-pets classes=pets    # those of '--dataset pets=FOLDER'
#     open_clip:ViT-B-32 checkpoint=mine.pt id=my-clip source=laion-2b samples_seen=34e9
#     open_clip:my-clip config=my-clip.json checkpoint=my-clip.safetensors
#
# group, family, source, source_size and samples_seen colour and sort the figures; mean, std, interpolation,
# resize_mode, crop_pct and input_size override a model's own preprocessing. 'extract models' lists the names.
"""


def model_lines(recipe: Recipe, counts: Mapping[str, int], folder: str = "weights") -> list[str]:
    """Return a run's lines of ``models.txt``, one a model."""
    lines = []
    for name, share in recipe.models().items():
        seen = sum(recipe.samples[:-1]) + round(recipe.samples[-1] * share)
        keys = {"checkpoint": f"{folder}/{name}.safetensors"}
        if recipe.method == "clip":
            head = f"open_clip:{recipe.id}"
            keys["config"] = f"{folder}/{recipe.id}.json"
        else:
            head = f"timm:{recipe.arch}"
            keys |= {"num_classes": str(len(CLASSES)), "classes": CLASS_SPACE, "input_size": str(recipe.side)}
        keys |= {
            "id": name,
            "group": recipe.group,
            "family": recipe.family,
            "source": recipe.source,
            "source_size": str(counts[recipe.data[0]]),
            "samples_seen": str(seen),
            "licence": "MIT",
        }
        keys |= recipe.options
        lines.append(" ".join([head, *(f"{key}={value}" for key, value in keys.items())]))
    return lines


def models_txt(size: Size = FULL, folder: str = "weights") -> str:
    """Return the text of ``models.txt``.

    Parameters
    ----------
    size
        Whose models.
    folder
        Where the weights lie, relative to the list: ``weights`` for the list in the miniature's own folder,
        ``miniature/weights`` for the one beside it.
    """
    parts = [_HEADER]
    for group, title in GROUPS.items():
        lines = [line for r in size.recipes if r.group == group for line in model_lines(r, size.counts, folder)]
        if lines:
            parts.append("\n".join([f"# {title}", *lines]) + "\n")
    return "\n".join(parts)
