"""Model cards and dataset cards, which a store keeps in its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from closerlook_common.errors import UserError, nearest

UNKNOWN = "unknown"

GROUPS: Mapping[str, str] = {
    "clip-zero-shot": "zero-shot CLIP",
    "clip-ft-in1k": "CLIP fine-tuned on IN-1k",
    "clip-ft-in12k": "CLIP fine-tuned via IN-12k",
    "supervised-in1k": "supervised IN-1k",
    "self-supervised": "self-supervised",
    "more-data": "pre-trained on more data",
    UNKNOWN: "unknown",
}
"""The study's groups of models: name on the command line -> title in a figure."""
FORMER_GROUPS: Mapping[str, str] = {"contrastive": "self-supervised"}
"""Group of older stores, tables and lists -> its name today: most of its models learnt by filling in masked images."""

FAMILIES = ("cnn", "vit", "hybrid", "mlp", UNKNOWN)
ROLES = ("id", "shift", "ood", "reference", "pairs")
HEAD_KINDS = ("linear", "zero-shot", "non-affine", UNKNOWN)

Role = Literal["id", "shift", "ood", "reference", "pairs"]


class _Card:
    """Convert to and from plain JSON; ignore unknown keys of a newer version."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build a card from a store's attributes."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in known}
        return cls(**values)

    def to_record(self) -> dict[str, Any]:
        """Return the card as a JSON-ready dictionary."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise UserError(f"{what} {value!r} is not one of {', '.join(allowed)}{nearest(value, allowed)}")


@dataclass(frozen=True, kw_only=True)
class ModelCard(_Card):
    """A model: everything that a table or a figure groups, colours or filters by.

    Attributes
    ----------
    id
        The model's name in every table, unique in a cache.
    library, name, tag
        ``timm``, ``open_clip`` or ``import``; architecture; pre-trained tag (the resolved one).
    family
        One of ``FAMILIES``.
    group
        One of ``GROUPS``.
    source, source_size
        Training source (``wit``, ``laion-2b``, ``imagenet-1k`` ...) and its number of images.
    samples_seen
        Training samples seen, repetitions counted.
    lineage
        ``BACKBONE/RUN/CHECKPOINT`` that the weights come from, so that near-copies are known; any name that
        near-copies share will do. Empty if unknown. Only statistics over models read it; it is not part of an identity.
    parameters
        Number of parameters of the image model (image tower of a CLIP).
    input_size
        Side of the square input in pixels.
    feature_width
        D, the width of the stored features.
    class_space
        The class space a fixed head answers in (``imagenet-1k``); empty for zero-shot models.
    head_kind
        ``linear`` (features and head give the logits), ``zero-shot``, or ``non-affine``.
    preprocessing
        JSON-ready record of resize, crop, interpolation, mean and std.
    logit_scale, logit_bias
        The multiplier of the cosine (already exponentiated) and the additive bias of a CLIP; None otherwise.
    weights_digest
        SHA-256 of the weight file.
    licence
        Of the weights.
    extra
        Anything else worth keeping; never read by the metrics.
    """

    id: str
    library: str = UNKNOWN
    name: str = UNKNOWN
    tag: str = ""
    family: str = UNKNOWN
    group: str = UNKNOWN
    source: str = UNKNOWN
    source_size: int | None = None
    samples_seen: int | None = None
    lineage: str = ""
    parameters: int | None = None
    input_size: int | None = None
    feature_width: int | None = None
    class_space: str = ""
    head_kind: str = UNKNOWN
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    logit_scale: float | None = None
    logit_bias: float | None = None
    weights_digest: str = ""
    licence: str = UNKNOWN
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id.strip():
            raise UserError("a model card needs an id")
        object.__setattr__(self, "group", FORMER_GROUPS.get(self.group, self.group))
        _one_of(self.group, tuple(GROUPS), f"group of model {self.id}:")
        _one_of(self.family, FAMILIES, f"family of model {self.id}:")
        _one_of(self.head_kind, HEAD_KINDS, f"head_kind of model {self.id}:")


@dataclass(frozen=True, kw_only=True)
class DatasetCard(_Card):
    """A dataset, and how its logits become probabilities.

    Attributes
    ----------
    id
        The dataset's name in every table, unique in a cache.
    role
        ``id`` (in-distribution test set), ``shift`` (a shifted test set with labels), ``ood`` (no labels),
        ``reference`` (a training set), ``pairs`` (images with captions). A cache may record another role,
        ``shift_of`` and distance than a store was sealed with: see :mod:`cache_schema.format.dataset_facts`.
    class_space
        Name of the label space the labels and logits live in (``imagenet-1k``).
    class_names
        Names by index; empty where the space is known by name.
    n_classes
        C, or None where there are no labels (OOD).
    class_mask
        Indices of the classes kept before the softmax (the 200 of ImageNet-A), None for all.
    class_map
        One tuple of member indices per super-class (ObjectNet, Vid-Robust), None where there is none.
        Labels are then indices of super-classes. Members outside every super-class are left out.
    class_map_rule
        How members make a super-class: ``max`` of the logits, ``restrict`` (softmax over the members, prediction is
        the super-class of the best member; same prediction as max, other confidence), or ``mean`` probability.
    shift_of
        Id of the in-distribution set this one is a shift of; empty otherwise.
    distance
        ``near`` or ``far`` for OOD sets; empty if not given.
    digest
        SHA-256 of the manifest (relative path, label, byte size of every image, in order).
    n_images
        Number of rows.
    licence, extra
        As for models.
    """

    id: str
    role: str = "id"
    class_space: str = ""
    class_names: tuple[str, ...] = ()
    n_classes: int | None = None
    class_mask: tuple[int, ...] | None = None
    class_map: tuple[tuple[int, ...], ...] | None = None
    class_map_rule: str = "max"
    shift_of: str = ""
    distance: str = ""
    digest: str = ""
    n_images: int | None = None
    licence: str = UNKNOWN
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id.strip():
            raise UserError("a dataset card needs an id")
        _one_of(self.role, ROLES, f"role of dataset {self.id}:")
        _one_of(self.class_map_rule, ("max", "restrict", "mean"), f"class_map_rule of dataset {self.id}:")
        if self.class_map is not None:
            object.__setattr__(self, "class_map", tuple(tuple(members) for members in self.class_map))
