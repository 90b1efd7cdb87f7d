"""The views of an image that a model is surest of."""

from __future__ import annotations

from dataclasses import replace

import torch

from extract.models.base import Outputs
from extract.models.view_recipe import CHOSEN, VIEWS
from extract.passes.runners import Runner, forward_halving


def forward_views(runner: Runner, pixels: torch.Tensor, start: int = 0) -> Outputs:
    """Run a model over the plain images, and over all views of each of them.

    The views of one image are run together and apart from those of others, so that their numbers do not depend on the
    size of the batch.

    Parameters
    ----------
    runner
        The model.
    pixels
        (B, 3, VIEWS * H, W) uint8, the views of each image one below the other.
    start
        The batch's first row.

    Returns
    -------
    Outputs
        Of the plain images, and in ``parts`` what `surest` returns.
    """
    rows, channels, height, width = pixels.shape
    # (B, VIEWS, 3, H, W)
    views = pixels.view(rows, channels, VIEWS, height // VIEWS, width).transpose(1, 2)
    found = forward_halving(runner, views[:, 0], start)
    alone = replace(runner, arrays=(), views=False)
    chosen: list[dict[str, torch.Tensor]] = []
    for one in views:
        outputs = forward_halving(alone, one)
        assert outputs.features is not None
        assert outputs.logits is not None
        chosen.append(surest(outputs.features, outputs.logits))
    runner.largest = alone.largest
    return replace(found, parts={**found.parts, **{name: torch.stack([c[name] for c in chosen]) for name in chosen[0]}})


def entropies(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of the softmax of each row of logits (V, C)."""
    logs = logits.float().log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def surest(features: torch.Tensor, logits: torch.Tensor, count: int = CHOSEN) -> dict[str, torch.Tensor]:
    """Return the views of one image whose softmax has the lowest entropy, the lowest first.

    Parameters
    ----------
    features
        (V, D) of all views.
    logits
        (V, C) of all views.
    count
        How many are kept; of equal ones the first.

    Returns
    -------
    dict
        ``view_features`` (count, D), ``view_entropies`` (count,) in nats, ``view_indices`` (count,). NaN where the
        model gives NaN or an infinity for any view.
    """
    all_of_them = entropies(logits)
    values, order = torch.sort(all_of_them, stable=True)
    # What is sorted to the end must not hide there.
    broken = ~(all_of_them.isfinite().all() & features.isfinite().all())
    values = values[:count].clamp(min=0).masked_fill(broken, float("nan"))
    return {"view_features": features[order[:count]].float(), "view_entropies": values, "view_indices": order[:count]}
