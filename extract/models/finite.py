"""Weights that are no numbers: a training run that diverged saves NaN, and every number after it would be one."""

from __future__ import annotations

from torch import nn

from closerlook_common.errors import UserError


def check_finite(module: nn.Module) -> None:
    """Raise where a saved tensor of a model holds NaN, or a parameter an infinity; buffers may mask with infinities.

    Raises
    ------
    UserError
        Names the first such tensor and their number.
    """
    parameters = {name for name, _ in module.named_parameters()}
    wrong = []
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
            continue
        if bool(tensor.isnan().any()) or name in parameters:
            wrong.append((name, int((~tensor.isfinite()).sum()), tensor.numel()))
    if wrong:
        name, count, total = wrong[0]
        more = f", and {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""
        raise UserError(
            f"{count:,} of the {total:,} values of its tensor {name} are NaN or infinite{more}: the training run"
            " diverged, or the file is damaged; take an earlier checkpoint"
        )
