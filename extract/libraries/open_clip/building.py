"""An open_clip model on the CPU with the weights of a file, every one of them set, or with random ones."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch

from closerlook_common.errors import UserError
from extract.libraries.open_clip import configs
from extract.libraries.open_clip.checks import check_size
from extract.libraries.open_clip.model import OpenClipModel
from extract.libraries.open_clip.weights import load_published
from extract.models import checkpoints
from extract.models.base import Built, Prepared, WeightsUnavailable
from extract.models.finite import check_finite
from extract.models.npz import check_npz
from extract.models.remote_code import remote_code
from extract.models.spec import ModelSpec
from extract.models.weights import explaining, file_digest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning, on the root logger, of random weights that are being replaced."""

    def grave(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    root = logging.getLogger()
    root.addFilter(grave)
    try:
        yield
    finally:
        root.removeFilter(grave)


def _construct(spec: ModelSpec, source: configs.Source) -> Any:
    """Return the model on the CPU with random weights."""
    config, _ = configs.preprocess_config(spec, source)
    options: dict[str, Any] = {
        "force_preprocess_cfg": config,
        "pretrained_image": False,
        "pretrained_text": False,
    }
    if (side := spec.number("input_size")) is not None:
        options["force_image_size"] = side
    if (quick_gelu := spec.flag("quick_gelu")) is not None:
        options["quick_gelu"] = quick_gelu
    with _quiet(), torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(spec.number("seed") or 0)
        name = source.architecture
        if source.custom:
            # open_clip builds configs that are not its own from a folder.
            description = {"model_cfg": dict(source.model), "preprocess_cfg": {}}
            (Path(folder) / configs.CONFIG_FILE).write_text(json.dumps(description), encoding="utf-8")
            name = f"local-dir:{folder}"
        return open_clip.create_model(name, load_weights=False, **options)


def _build_towers(spec: ModelSpec, source: configs.Source) -> Any:
    if not (tower := source.model["text_cfg"].get("hf_model_name")):
        return _construct(spec, source)
    # open_clip builds only text towers that transformers has itself, so no option allows others.
    with remote_code(False, spec.where, f"the text tower {tower}"):
        return _construct(spec, source)


def _fill(spec: ModelSpec, model: Any, weights: Path) -> None:
    """Load the weights of a file into a model; every parameter must be in it."""
    if weights.suffix in (".npz", ".npy"):
        check_npz(weights)
        open_clip.load_checkpoint(model, str(weights))
    else:
        content = checkpoints.read_checkpoint(weights)
        try:
            load_published(model, content)
        except (RuntimeError, LookupError, AttributeError, TypeError, ValueError, AssertionError):
            # A training checkpoint whose wrapping open_clip does not know.
            checkpoints.fill(model, spec.name, weights, content, average=spec.flag("ema") is not False)
    if model.logit_bias is not None and not model.logit_bias.any():
        # open_clip fills in a zero where the file has none.
        raise UserError(
            f"{spec.id}: its config has a logit bias, {weights} has none or zero; the config is of another kind"
            " of model than the weights"
        )


def build(prepared: Prepared) -> Built:
    """Build an open_clip model on the CPU and load its weights; see `extract.models.build`."""
    spec = prepared.spec
    source = configs.source_of(spec)
    weights = prepared.weights
    if weights is None and not spec.flag("allow_random"):
        with explaining(spec.name, "the hub", None):
            weights = configs.fetch(source)
    if source.custom:
        check_size(spec, source.model, None if weights is None else weights.stat().st_size)
    hub_tower = source.model["text_cfg"].get("hf_model_name")
    try:
        with explaining(spec.name, f"the hub (the config of its text tower, {hub_tower})", None):
            module = _build_towers(spec, source)
    except WeightsUnavailable as error:
        if hub_tower:
            raise
        raise UserError(f"{spec.where}: open_clip cannot build {source.architecture}: {error.__cause__}") from error
    if weights is not None:
        with explaining(spec.id, "", weights):
            _fill(spec, module, weights)
            check_finite(module)
    digest = file_digest(weights) if weights is not None else prepared.card.weights_digest
    card = replace(prepared.card, weights_digest=digest)
    filled = replace(prepared, card=card, weights=weights)
    return Built(filled, module, lambda device, precision: OpenClipModel(filled, source, module, device, precision))
