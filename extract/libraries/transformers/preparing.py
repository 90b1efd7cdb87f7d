"""A model of transformers before it is built: which kind it is, card, preprocessing, weight files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError
from extract.libraries import saved
from extract.libraries.named import LOCAL
from extract.libraries.transformers.encoders import ENCODERS
from extract.libraries.transformers.processors import preprocessing_of_processor
from extract.models.base import Prepared
from extract.models.cards import model_card
from extract.models.outputs import output_space
from extract.models.spec import ModelSpec
from extract.models.transforms import line_preprocessing

ZERO_SHOT = {
    "align": "AlignModel",
    "altclip": "AltCLIPModel",
    "chinese_clip": "ChineseCLIPModel",
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
}
"""Architecture -> its class of an image and a text tower. SigLIP 2 of fixed image sizes is saved as ``siglip``."""

CLASSIFIER = "ForImageClassification"


def kind_of(spec: ModelSpec, source: saved.Source) -> str:
    """Return ``zero-shot``, ``classifier``, or ``encoder`` for one without a head.

    Raises
    ------
    UserError
        It is a model of another kind.
    """
    if source.architecture.endswith(CLASSIFIER):
        return "classifier"
    if ZERO_SHOT.get(source.model_type) == source.architecture:
        return "zero-shot"
    if source.architecture in ENCODERS:
        return "encoder"
    known = f"an image classifier (...{CLASSIFIER}) or one of {', '.join([*ZERO_SHOT.values(), *ENCODERS])}"
    if source.model_type == "siglip2":
        known += "; SigLIP 2 with images of changing shape (NaFlex) has no fixed input size"
    shown = source.architecture or f"a model of type {source.model_type}"
    raise UserError(f"{spec.where}: {spec.id} is {shown[:80]}, not {known}")


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of a model of transformers without building it."""
    source = saved.source_of(spec)
    kind = kind_of(spec, source)
    files = saved.weight_files(spec, source)
    preprocessing = line_preprocessing(spec, preprocessing_of_processor(spec, source))
    digest = saved.weights_digest(files, known=True)
    extra: dict[str, Any] = {"architecture": source.architecture, "model_type": source.model_type}
    known: dict[str, Any] = {
        "input_size": preprocessing.geometry.output_size[0],
        "preprocessing": preprocessing.to_record(),
        "weights_digest": digest,
    }
    names: tuple[str, ...] = ()
    if kind == "classifier":
        labels = _labels(spec, source)
        n_classes = len(labels)
        known["class_space"], names = output_space(spec, n_classes, () if _are_numbered(labels) else labels)
        extra["n_classes"] = n_classes
    elif kind == "encoder":
        extra["n_classes"] = 0
    else:
        known["head_kind"] = "zero-shot"
        known["group"] = "clip-zero-shot"
        if isinstance(width := source.config.get("projection_dim"), int) and source.model_type != "siglip":
            known["feature_width"] = width
        extra["clean"] = clean_of(spec, source)
    card = model_card(spec, extra=extra, **known)
    if spec.name.startswith(LOCAL):  # the same folder is the same model wherever it lies
        card = replace(card, name=Path(spec.name.removeprefix(LOCAL)).name)
    weights = files[0] if len(files) == 1 else None
    return Prepared(spec, card, preprocessing, weights, files_digest=saved.files_digest(source), class_names=names)


def _labels(spec: ModelSpec, source: saved.Source) -> list[str]:
    """Return the classes of a classifier by index; ``num_labels`` of them where they have no names."""
    labels = source.config.get("id2label")
    if labels is None:
        return [f"LABEL_{index}" for index in range(int(source.config.get("num_labels", 2)))]
    try:
        return (
            [str(labels[key]) for key in sorted(labels, key=int)]
            if isinstance(labels, dict)
            else list(map(str, labels))
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{spec.where}: the id2label of {spec.id} is not a name for each number") from error


def _are_numbered(labels: list[str]) -> bool:
    """Return whether labels are transformers' own, or plain numbers, so that the classes have no names."""
    return all(label in (f"LABEL_{index}", str(index)) for index, label in enumerate(labels))


def clean_of(spec: ModelSpec, source: saved.Source) -> str:
    """Return how texts are cleaned before they become tokens."""
    stated = spec.options.get("clean", "")
    if stated and stated not in ("canonicalize", "lower", "none"):
        raise UserError(f"{spec.where}: clean={stated} is not canonicalize, lower or none")
    return stated or ("canonicalize" if source.model_type == "siglip" else "none")
