"""A timm model before it is built: card, preprocessing, weight file, and how many classes it answers in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.data.config import resolve_data_config

from closerlook_common.errors import UserError, nearest
from extract.classes.spaces import IMAGENET_1K
from extract.datasets.spaces import space_for
from extract.libraries.timm import weights as timm_weights
from extract.libraries.timm.preprocessing import CROP_MODES, from_timm
from extract.libraries.timm.sources import LARGEST_HEAD, Source, saved_config_digest, source_of
from extract.models.base import Prepared, WeightsUnavailable
from extract.models.cards import model_card
from extract.models.shapes import classifier_width
from extract.models.spec import ModelSpec
from extract.models.weights import checkpoint_file, explaining, known_digest


def _overrides(spec: ModelSpec) -> dict[str, Any]:
    """Return what the line says about preprocessing, in timm's words."""
    overrides: dict[str, Any] = {"mean": spec.numbers("mean"), "std": spec.numbers("std"),
                                 "interpolation": spec.options.get("interpolation")}  # fmt: skip
    if (side := spec.number("input_size")) is not None:
        overrides["input_size"] = (3, side, side)
    if crop_pct := spec.numbers("crop_pct"):
        overrides["crop_pct"] = crop_pct[0]
    if mode := spec.options.get("resize_mode"):
        names: dict[str, str] = {side: name for name, side in CROP_MODES.items()}
        if mode not in names:
            raise UserError(f"{spec.where}: resize_mode={mode} is not one of {', '.join(names)}{nearest(mode, names)}")
        overrides["crop_mode"] = names[mode]
    return {key: value for key, value in overrides.items() if value is not None}


def _n_classes(spec: ModelSpec, source: Source, weights: Path | None) -> tuple[int, bool]:
    """Return the number of classes, and whether it is known rather than guessed from the architecture's default."""
    if (stated := spec.number("num_classes")) is not None:
        if stated > LARGEST_HEAD:
            raise UserError(f"{spec.where}: num_classes={stated} is not between 0 and {LARGEST_HEAD:,}")
        return stated, True
    if spec.checkpoint is not None and weights is not None:
        with explaining(spec.id, "", weights):
            width = classifier_width(weights, source.config.get("classifier"))
        if width is not None:
            return width, True
    return int(source.config.get("num_classes", 1000)), spec.checkpoint is None


def _class_space(spec: ModelSpec, n_classes: int) -> str:
    """Return the id of the class space that the head answers in, empty where it is unknown."""
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
    try:
        preprocessing = from_timm(data)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from None
    random = spec.flag("allow_random")
    if spec.checkpoint is not None:
        weights: Path | None = checkpoint_file(spec.checkpoint, spec.where)
    else:
        weights = None if random else timm_weights.locate(spec, source.config)
    if weights is None and not random and not timm_weights.has_source(spec, source.config):
        raise WeightsUnavailable(f"{spec.where}: {spec.name} has no published weights: give checkpoint=FILE")
    digest = known_digest(weights) if weights else f"random-{spec.number('seed') or 0}" if random else ""
    n_classes, is_known = _n_classes(spec, source, weights)
    published = spec.checkpoint is None and not random
    extra = {"n_classes": n_classes, "architecture": source.architecture}
    if not is_known:
        extra["n_classes_guessed"] = True
    if weights is None and random:
        extra["random_weights"] = True
    if spec.checkpoint is not None:
        extra["checkpoint"] = spec.checkpoint.name
    if "class_order" in spec.options:
        extra["class_order"] = spec.options["class_order"]
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
    return Prepared(spec, card, preprocessing, weights, files_digest=saved_config_digest(spec))
