"""A timm model on the CPU with the weights of a file, every one of them set, or with random ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch

from closerlook_common.errors import UserError
from extract.libraries.timm import weights as timm_weights
from extract.libraries.timm.model import TimmModel
from extract.libraries.timm.sources import source_of
from extract.models import checkpoints
from extract.models.base import Built, Prepared
from extract.models.finite import check_finite
from extract.models.meta import check_random, filled_from_meta, fits
from extract.models.npz import check_npz
from extract.models.weights import explaining, file_digest


@contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Collect what timm's loader logs about parameters that a file did not hold."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (message := record.getMessage()).startswith("Missing keys"):
                messages.append(message)

    logger, listener = logging.getLogger("timm.models._builder"), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def _module(prepared: Prepared, weights: Path | None) -> Any:
    """Return the model on the CPU with the weights of a file, or random ones.

    A file that fits as it is is loaded strictly. Any other goes through timm's own conversion for the
    architecture (original releases, other input sizes); parameters that it leaves unset are an error.
    """
    spec, source = prepared.spec, source_of(prepared.spec)
    n_classes = int(prepared.card.extra["n_classes"])
    arguments = {**source.arguments, "num_classes": n_classes}
    config = {**source.config, "num_classes": n_classes}
    side = spec.number("input_size")
    if side is not None and config.get("fixed_input_size"):
        arguments["img_size"] = side

    def create(**loading: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.number("seed") or 0)
            chosen = {"pretrained": False, "pretrained_cfg": config, **loading}
            return timm.create_model(source.architecture, **chosen, **arguments)

    if weights is None:
        check_random(create)
        return create()
    average, overlay = spec.flag("ema") is not False, {"num_classes": n_classes}
    if weights.suffix in (".npz", ".npy"):
        check_npz(weights)
        return _converted(prepared, weights, create, config, {**overlay, "file": str(weights), "custom_load": True})
    content = checkpoints.read_checkpoint(weights)
    state = timm_weights.published_state(content, average=average)
    if (quick := filled_from_meta(create, state or {}, weights.stat().st_size)) is not None:
        return quick
    if state is not None:
        model = create()
        if fits(model, state):
            model.load_state_dict(state, strict=True)
            return model
        try:
            # The weights themselves are handed over: timm reads no file.
            return _converted(prepared, weights, create, config, {**overlay, "state_dict": state})
        except (RuntimeError, LookupError, AttributeError, TypeError, ArithmeticError):
            del state
    model = create()  # a training checkpoint whose wrapping timm does not know
    checkpoints.fill(model, prepared.card.name, weights, content, average=average)
    return model


def _converted(
    prepared: Prepared, weights: Path, create: Callable[..., Any], config: dict[str, Any], overlay: dict[str, Any]
) -> Any:
    """Return a model filled by timm's own conversion for the architecture; every parameter must be set by it."""
    with _missing_keys() as missing:
        model = create(pretrained=True, pretrained_cfg={**config, "custom_load": False}, pretrained_cfg_overlay=overlay)
    model.pretrained_cfg.pop("state_dict", None)
    if missing:
        architecture = prepared.card.extra["architecture"]
        raise UserError(
            f"{prepared.spec.id}: {weights} does not hold all weights of {architecture}: {missing[0][:200]}"
        )
    return model


def build(prepared: Prepared) -> Built:
    """Build a timm model on the CPU and load its weights; see `extract.models.build`."""
    spec = prepared.spec
    weights = prepared.weights
    if weights is None and not spec.flag("allow_random"):
        with explaining(spec.name, "the hub", None):
            weights = timm_weights.fetch(spec, source_of(spec).config)
    with explaining(spec.id, "", weights):
        module = _module(prepared, weights)
        check_finite(module)
    digest = file_digest(weights) if weights is not None else prepared.card.weights_digest
    filled = replace(prepared, card=replace(prepared.card, weights_digest=digest))
    return Built(filled, module, lambda device, precision: TimmModel(filled, module, device, precision))
