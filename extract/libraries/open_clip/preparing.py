"""An open_clip model before it is built: card, preprocessing, weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError
from extract.libraries.open_clip import configs
from extract.libraries.open_clip.preprocessing import from_open_clip
from extract.models.base import Prepared, WeightsUnavailable
from extract.models.cards import model_card
from extract.models.spec import ModelSpec
from extract.models.weights import checkpoint_file, known_digest


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of an open_clip model without building it; see `extract.models.prepare`."""
    source = configs.source_of(spec)
    config, stated_by = configs.preprocess_config(spec, source)
    try:
        preprocessing = from_open_clip(config)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from None
    random = bool(spec.flag("allow_random"))
    if spec.checkpoint is not None:
        weights: Path | None = checkpoint_file(spec.checkpoint, spec.where)
    else:
        weights = None if random else configs.locate(spec, source)
    if weights is None and not random and not source.weights_entry:
        raise WeightsUnavailable(f"{spec.where}: {spec.name} has no published weights: give checkpoint=FILE")
    extra: dict[str, Any] = {"architecture": source.architecture, "preprocessing_said_by": stated_by}
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
    return Prepared(spec, card, preprocessing, weights, files_digest=configs.files_digest(spec, source))
