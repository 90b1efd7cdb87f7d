"""What the shapes of a checkpoint show: how many classes its classifier has; little of the file is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from closerlook_common.errors import UserError
from extract.models.checkpoints import read_checkpoint
from extract.models.pickles import nested_tensors

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""In the order in which timm looks for them; the first two are moving averages."""
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors in a checkpoint, by name without wrappers' prefixes; little of it is
    read.
    """
    if path.suffix in (".npz", ".npy"):
        return {}
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    else:
        tables = list(nested_tensors(read_checkpoint(path)))
        known = [tensors for wrapper in WRAPPERS for keys, tensors in tables if keys == (wrapper,)]
        # Wrappers that timm does not know come after those it does; see `checkpoints.fitting_state`.
        found = {
            name: tuple(value.shape)
            for tensors in (known or [tensors for _, tensors in tables])[::-1]
            for name, value in tensors.items()
        }
    return {_bare(name): shape for name, shape in found.items()}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def classifier_width(path: Path, classifier: str | Sequence[str] | None) -> int | None:
    """Return the number of classes of a checkpoint from the shape of its classifier, or None if it has none
    by that name.
    """
    if classifier is None:
        return None
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    held = shapes(path)
    for name in names:
        if shape := held.get(f"{name}.weight"):
            if 0 in shape:
                raise UserError(f"the weights in {path} hold no values: {name}.weight has the shape {shape}")
            return shape[0]
        # Under a prefix of a training framework (Lightning's "model.") the width is known if there is only one.
        widths = {shape[0] for key, shape in held.items() if key.endswith(f".{name}.weight") and shape}
        if len(widths) == 1:
            return widths.pop()
    return None
