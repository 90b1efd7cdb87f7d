"""open_clip models: the unnormalised image embedding, and a zero-shot head for any class space and prompt
set.
"""

from __future__ import annotations

import functools
import json
import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.classes.prompts import DEFAULT_PROMPT_SET, PromptSet, prompt_set
from extract.classes.spaces import ClassSpace
from extract.models import checkpoints
from extract.models import open_clip_configs as configs
from extract.models.base import (
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
from extract.models.memory import free_cached, is_out_of_memory
from extract.models.pixels import Normalizer, body_precision, check_precision, to_channels_last, true_float32
from extract.models.projection import float32_projection
from extract.models.text_cache import TextCache
from extract.models.weights import checkpoint_file, explaining, file_digest, known_digest
from extract.preprocess import from_open_clip
from extract.zoo.model_list import ModelSpec

__all__ = ["OpenClipModel", "build", "prepare"]

TEXTS_PER_BATCH = 256


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of an open_clip model without building it; see `extract.models.prepare`."""
    source = configs.source_of(spec)
    config, said_by = configs.preprocess_config(spec, source)
    preprocessing = from_open_clip(config)
    random = bool(spec.flag("allow_random"))
    if spec.checkpoint is not None:
        weights: Path | None = checkpoint_file(spec.checkpoint, spec.where)
    else:
        weights = None if random else configs.locate(spec, source)
    if weights is None and not random and not source.weights_entry:
        raise WeightsUnavailable(f"{spec.where}: {spec.name} has no published weights: give checkpoint=FILE")
    extra: dict[str, Any] = {"architecture": source.architecture, "preprocessing_said_by": said_by}
    if weights is None and random:
        extra["random_weights"] = True
    if spec.checkpoint is not None:
        extra["checkpoint"] = spec.checkpoint.name
    digest = known_digest(weights) if weights else f"random-{spec.number('seed') or 0}" if random else ""
    card = model_card(
        spec,
        tag=source.tag if spec.checkpoint is None and not random else "",
        input_size=preprocessing.geometry.output_size[0],
        feature_width=int(source.model["embed_dim"]),
        head_kind="zero-shot",
        preprocessing=preprocessing.to_record(),
        weights_digest=digest,
        extra=extra,
    )
    return Prepared(spec, card, preprocessing, weights)


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


def _fill(spec: ModelSpec, model: Any, weights: Path) -> None:
    """Load the weights of a file into a model; every parameter must be in it."""
    try:
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except (RuntimeError, KeyError, AttributeError, TypeError, AssertionError, pickle.UnpicklingError):
        if weights.suffix in (".npz", ".npy"):
            raise
        # A training checkpoint whose wrapping open_clip does not know.
        checkpoints.fill(model, spec.name, weights, average=spec.flag("ema") is not False)
    if model.logit_bias is not None and not model.logit_bias.any():
        # open_clip fills in a zero where the file has none.
        raise UserError(
            f"{spec.id}: its config has a logit bias, {weights} has none or zero; the config is of another "
            "kind"
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
    hub_tower = source.model["text_cfg"].get("hf_model_name")
    try:
        with explaining(spec.name, f"the hub (the config of its text tower, {hub_tower})", None):
            module = _construct(spec, source)
    except WeightsUnavailable as error:
        if hub_tower:
            raise
        raise UserError(
            f"{spec.where}: open_clip cannot build {source.architecture}: {error.__cause__}"
        ) from error
    if weights is not None:
        with explaining(spec.id, "", weights):
            _fill(spec, module, weights)
    digest = file_digest(weights) if weights is not None else prepared.card.weights_digest
    card = replace(prepared.card, weights_digest=digest)
    filled = replace(prepared, card=card, weights=weights)
    return Built(filled, module, lambda device, precision: OpenClipModel(filled, source, module, device, precision))


class OpenClipModel(LoadedModel):
    """A CLIP-like model in evaluation mode; its logits come from the embedding and a head, see `head`."""

    def __init__(
        self, prepared: Prepared, source: configs.Source, module: Any, device: str, precision: str
    ) -> None:
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        size = module.visual.image_size
        built = (size, size) if isinstance(size, int) else tuple(size)
        if built != prepared.preprocessing.geometry.output_size:
            raise UserError(
                f"{prepared.spec.id}: the image tower takes {built}, but images would be made"
                f" {prepared.preprocessing.geometry.output_size}; leave input_size= away"
            )
        self.module: Any = module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module.visual)
        # CoCa's own default is to normalise.
        self._tower = functools.partial(self.module.encode_image, normalize=False)
        self.feature_width = int(source.model["embed_dim"])
        self.card = replace(
            prepared.card,
            feature_width=self.feature_width,
            parameters=sum(parameter.numel() for parameter in module.visual.parameters()),
            logit_scale=module.logit_scale.detach().exp().item(),
            logit_bias=None if module.logit_bias is None else module.logit_bias.detach().item(),
        )
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        self._project: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float
        # Last of what may run out of memory: it changes the module, and can be done once.
        if self.precision != "fp32":
            self._project = float32_projection(self.module.visual)
        self._source = source
        tower = json.dumps(
            [source.model, configs.tokenizer_id(source), prepared.spec.options.get("quick_gelu")],
            sort_keys=True,
        )
        self._texts = TextCache("" if prepared.weights is None else self.card.weights_digest, tower)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the projected image embedding, not normalised; see `LoadedModel.forward`."""
        with body_precision(self.device, self.precision):
            pooled: torch.Tensor = self._tower(self._normalize(pixels))
        return Outputs(self._project(pooled), None)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            return configs.tokenizer_of(self._source)
        except ImportError as error:
            raise HeadUnavailable(
                f"{self.card.id}: its tokenizer needs {error.name}: pip install 'closerlook[extract]'"
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise HeadUnavailable(
                f"{self.card.id}: its tokenizer is neither in the hub cache nor to be had; warm the hub "
                "cache (HF_HOME), or use"
                f" local-dir:FOLDER with the tokenizer's files in it ({reason})"
            ) from error

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (m, D) unit-norm text embeddings, always computed in float32, fewer at a time where memory
        runs out; see `LoadedModel.encode_texts`.
        """
        out = np.empty((len(texts), self.feature_width), dtype=np.float32)
        start, most = 0, TEXTS_PER_BATCH
        while start < len(texts):
            batch = texts[start : start + most]
            try:
                out[start : start + len(batch)] = self._encoded(batch)
                start += len(batch)
                continue
            except Exception as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            free_cached(self.device)
            most = len(batch) // 2
        return out

    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(texts).to(self.device)
        with true_float32(self.device):
            encoded: NDArray[np.float32] = self.module.encode_text(tokens, normalize=True).float().cpu().numpy()
        return encoded

    def head(self, class_space: ClassSpace, prompts: PromptSet | None = None) -> Head:
        """Return the zero-shot classifier of a class space; see `LoadedModel.head`.

        Unit text embeddings are averaged over a class's texts and normalised again, as open_clip's
        ``build_zero_shot_classifier`` does. ``prompts`` defaults to the 80 templates of the CLIP paper.
        """
        prompts = prompts or prompt_set(DEFAULT_PROMPT_SET)
        total = np.zeros((len(class_space.names), self.feature_width), dtype=np.float64)
        n_templates = 0
        for members, texts in prompts.columns(class_space):
            total[list(members)] += self._texts(texts, self.encode_texts)
            n_templates += 1
        self._texts.trim()
        norms = np.linalg.norm(total, axis=1, keepdims=True)
        if not (norms > 0).all():
            index = int(np.argmin(norms))
            raise HeadUnavailable(
                f"{self.card.id}: the texts of class {index} ({class_space.names[index]}) cancel out"
            )
        return Head(
            class_space=class_space.id,
            class_names=class_space.names,
            weight=(total / norms).astype(np.float32),
            bias=np.full(len(total), self.card.logit_bias or 0.0, dtype=np.float32),
            normalize_features=True,
            logit_scale=self.card.logit_scale,
            logit_bias=self.card.logit_bias,
            prompt_set=prompts.name,
            templates=prompts.templates,
            n_templates=n_templates,
            text_sum=total.astype(np.float32),
        )
