"""timm classifiers: features, head and logits from one forward, with the preprocessing that its tables were
made with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg, load_model_config_from_hf
from timm.models import load_state_dict as read_state_dict

from cache_schema.errors import UserError, nearest
from extract.classes.prompts import PromptSet
from extract.classes.spaces import IMAGENET_1K, ClassSpace
from extract.datasets.spaces import space_for
from extract.models import checkpoints, heads, timm_weights
from extract.models.base import (
    AFFINE_TOLERANCE,
    Built,
    Head,
    HeadUnavailable,
    LoadedModel,
    Outputs,
    Prepared,
    Preprocessing,
    WeightsUnavailable,
)
from extract.models.cards import model_card
from extract.models.meta import filled_from_meta, fits
from extract.models.pixels import Normalizer, body_precision, check_precision, to_channels_last, true_float32
from extract.models.weights import checkpoint_file, explaining, file_digest, known_digest
from extract.preprocess import TIMM_MODES, from_timm
from extract.zoo.model_list import ModelSpec

CHECKED_ROWS = 4
"""Rows of each batch whose logits are compared with features times head."""


@dataclass(frozen=True)
class Source:
    """What timm knows of a name: architecture, pretrained config, and arguments saved with a checkpoint."""

    architecture: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]


def source_of(spec: ModelSpec) -> Source:
    """Return what timm knows of a line's name, from its registry, a folder, or the hub."""
    if spec.name.startswith("local-dir:"):
        config, architecture, arguments = _saved_config(spec)
    elif spec.name.startswith("hf-hub:"):
        with explaining(spec.name, "the hub", None):
            config, architecture, arguments = load_model_config_from_hf(spec.name.removeprefix("hf-hub:"))
    else:
        found: Any = get_pretrained_cfg(spec.name)
        if found is None:
            raise UserError(
                f"{spec.where}: timm has no model {spec.name!r}{nearest(spec.name, timm.list_models())}"
            )
        config, architecture, arguments = found.to_dict(), spec.name.partition(".")[0], {}
    if not timm.is_model(architecture):
        raise UserError(
            f"{spec.where}: timm has no architecture "
            f"{architecture!r}{nearest(architecture, timm.list_models())}"
        )
    config.pop("source", None)
    return Source(architecture, config, arguments)


def _saved_config(spec: ModelSpec) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Read the ``config.json`` that timm saves beside weights."""
    file = Path(spec.name.removeprefix("local-dir:")) / "config.json"
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        config, architecture = dict(saved["pretrained_cfg"]), str(saved["architecture"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{spec.where}: {file} is not timm's description of a saved model: {error}") from None
    if "num_classes" in saved:
        config["num_classes"] = saved["num_classes"]
    known = {field.name for field in fields(PretrainedCfg)}
    return (
        {key: value for key, value in config.items() if key in known},
        architecture,
        dict(saved.get("model_args") or {}),
    )


def _overrides(spec: ModelSpec) -> dict[str, Any]:
    """Return what the line says about preprocessing, in timm's words."""
    overrides: dict[str, Any] = {"mean": spec.numbers("mean"), "std": spec.numbers("std"),
                                 "interpolation": spec.options.get("interpolation")}  # fmt: skip
    if (side := spec.number("input_size")) is not None:
        overrides["input_size"] = (3, side, side)
    if crop_pct := spec.numbers("crop_pct"):
        overrides["crop_pct"] = crop_pct[0]
    if mode := spec.options.get("resize_mode"):
        names = {side: name for name, side in TIMM_MODES.items()}
        if mode not in names:
            raise UserError(
                f"{spec.where}: resize_mode={mode} is not one of {', '.join(names)}{nearest(mode, names)}"
            )
        overrides["crop_mode"] = names[mode]
    return {key: value for key, value in overrides.items() if value is not None}


def _n_classes(spec: ModelSpec, source: Source, weights: Path | None) -> tuple[int, bool]:
    """Return the number of classes, and whether it is told rather than guessed from the architecture's default."""
    if (stated := spec.number("num_classes")) is not None:
        return stated, True
    if spec.checkpoint is not None and weights is not None:
        with explaining(spec.id, "", weights):
            width = timm_weights.classifier_width(weights, source.config.get("classifier"))
        if width is not None:
            return width, True
    return int(source.config.get("num_classes", 1000)), spec.checkpoint is None


def _class_space(spec: ModelSpec, n_classes: int) -> str:
    """Return the id of the class space that the head answers in, empty where nobody says."""
    stated = spec.options.get("classes", "")
    if not stated.endswith(".txt"):
        return stated or (IMAGENET_1K if n_classes == 1000 else "")
    space = space_for(stated, (), where=spec.where)
    if len(space) != n_classes:
        raise UserError(f"{spec.where}: {stated} names {len(space)} classes, {spec.id} answers in {n_classes}")
    return space.id


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of a timm model without building it; see `extract.models.prepare`."""
    source = source_of(spec)
    data = resolve_data_config(_overrides(spec), pretrained_cfg=dict(source.config), use_test_size=True)  # type: ignore[no-untyped-call]
    preprocessing = from_timm(data)
    random = spec.flag("allow_random")
    if spec.checkpoint is not None:
        weights: Path | None = checkpoint_file(spec.checkpoint, spec.where)
    else:
        weights = None if random else timm_weights.locate(spec, source.config)
    if weights is None and not random and not timm_weights.has_source(spec, source.config):
        raise WeightsUnavailable(f"{spec.where}: {spec.name} has no published weights: give checkpoint=FILE")
    digest = known_digest(weights) if weights else f"random-{spec.number('seed') or 0}" if random else ""
    n_classes, is_told = _n_classes(spec, source, weights)
    published = spec.checkpoint is None and not random
    extra = {"n_classes": n_classes, "architecture": source.architecture}
    if not is_told:
        extra["n_classes_guessed"] = True
    if weights is None and random:
        extra["random_weights"] = True
    if spec.checkpoint is not None:
        extra["checkpoint"] = spec.checkpoint.name
    card = model_card(
        spec,
        tag=str(source.config.get("tag") or "") if published else "",
        input_size=preprocessing.geometry.output_size[0],
        class_space=_class_space(spec, n_classes),
        preprocessing=preprocessing.to_record(),
        weights_digest=digest,
        licence=source.config.get("license") if published else None,
        extra=extra,
    )
    return Prepared(spec, card, preprocessing, weights)


@contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Collect what timm's loader says about parameters that a file did not hold; it only logs it."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (message := record.getMessage()).startswith("Missing keys"):
                told.append(message)

    logger, listener = logging.getLogger("timm.models._builder"), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield told
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

    def create() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.number("seed") or 0)
            return timm.create_model(source.architecture, pretrained=False, pretrained_cfg=config, **arguments)

    if weights is None:
        return create()
    foreign, average = weights.suffix in (".npz", ".npy"), spec.flag("ema") is not False
    if not foreign:
        state = read_state_dict(str(weights), use_ema=average)
        if (quick := filled_from_meta(create, state)) is not None:
            return quick
        model = create()
        if fits(model, state):
            model.load_state_dict(state, strict=True)
            return model
        del state
    overlay = {"file": str(weights), "num_classes": n_classes, "custom_load": foreign}
    try:
        with _missing_keys() as missing:
            model = timm.create_model(
                source.architecture, pretrained=True, pretrained_cfg=config, pretrained_cfg_overlay=overlay, **arguments
            )
    except (RuntimeError, KeyError, AttributeError, TypeError):
        if foreign:
            raise
        model = create()  # a training checkpoint whose wrapping timm does not know
        checkpoints.fill(model, prepared.card.name, weights, average=average)
        return model
    if missing:
        raise UserError(f"{spec.id}: {weights} does not hold all weights of {source.architecture}: {missing[0][:200]}")
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
    digest = file_digest(weights) if weights is not None else prepared.card.weights_digest
    filled = replace(prepared, card=replace(prepared.card, weights_digest=digest))
    return Built(filled, module, lambda device, precision: TimmModel(filled, module, device, precision))


def _float32(body: Any) -> Any:
    if isinstance(body, torch.Tensor):
        return body.float()
    if isinstance(body, (tuple, list)):
        return type(body)(_float32(part) for part in body)
    return body


class TimmModel(LoadedModel):
    """A timm model in evaluation mode, its head found and checked on two images of noise."""

    def __init__(self, prepared: Prepared, module: Any, device: str, precision: str) -> None:
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        self.module: Any = module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module)
        self._tower = self.module.forward_features
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        self._affine: heads.AffineHead | None = None
        height, width = prepared.preprocessing.geometry.output_size
        noise = torch.randint(
            0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        with torch.inference_mode():
            body = self._body(noise.to(self.device), "fp32")
            with true_float32(self.device):
                if heads.has_classifier(module):
                    self._affine = heads.find_head(self.module, body)
                    self.feature_width = self._affine.weight.shape[1]
                else:
                    self.feature_width = int(self._pooled(body).shape[1])
        if self._affine is not None:
            self._weight = torch.from_numpy(self._affine.weight).to(self.device)
            self._bias = torch.from_numpy(self._affine.bias).to(self.device)
            self._worst = torch.tensor(self._affine.residual, dtype=torch.float32, device=self.device)
        kind = "unknown" if self._affine is None else "linear" if self._affine.affine else "non-affine"
        self.card = replace(
            prepared.card,
            feature_width=self.feature_width,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            head_kind=kind,
            weights_digest=prepared.card.weights_digest,
        )

    def _body(self, pixels: torch.Tensor, precision: str) -> Any:
        images = self._normalize(pixels)
        with body_precision(self.device, precision):
            return _float32(self._tower(images))

    def _pooled(self, body: Any) -> torch.Tensor:
        pooled: torch.Tensor = self.module.forward_head(body, pre_logits=True)
        return pooled.flatten(1)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Run the model once; see `LoadedModel.forward`."""
        body = self._body(pixels, self.precision)
        with true_float32(self.device):
            if self._affine is None:
                return Outputs(self._pooled(body), None)
            features, logits = heads.features_and_logits(self.module, body, self._affine.tapped)
            if self._affine.affine:
                # A few rows of every batch tell as much as all, for a fraction of the head's own cost.
                some = slice(None, None, max(len(logits) // CHECKED_ROWS, 1))
                found = heads.deviation(features[some], logits[some], self._weight, self._bias)
                self._worst = torch.maximum(self._worst, found)
        return Outputs(features, logits)

    def head(self, class_space: ClassSpace, prompts: PromptSet | None = None) -> Head:
        """Return the model's classifier, with the largest residual of all batches seen; see
        `LoadedModel.head`.
        """
        if self._affine is None:
            raise HeadUnavailable(f"{self.card.id} has no classifier, only features")
        if self.card.class_space != class_space.id:
            space = (
                self.card.class_space
                or f"{len(self._affine.bias)} classes that nobody named (classes=NAME in its line)"
            )
            raise HeadUnavailable(f"{self.card.id} answers in {space}, not in {class_space.id}")
        if len(class_space.names) != len(self._affine.bias):
            raise HeadUnavailable(
                f"{self.card.id} has {len(self._affine.bias)} classes, {class_space.id} has "
                f"{len(class_space)}"
            )
        residual = max(float(self._worst), self._affine.residual)
        return Head(
            class_space=class_space.id,
            class_names=class_space.names,
            weight=self._affine.weight,
            bias=self._affine.bias,
            affine=residual <= AFFINE_TOLERANCE,
            residual=residual,
        )
