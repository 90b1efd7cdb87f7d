"""A model's card: fields of its name and its library, then those of the line of the list."""

from __future__ import annotations

from typing import Any

from cache_schema.format.model_names.card_fields import derive
from cache_schema.format.model_names.lineages import lineage_of
from cache_schema.format.records import ModelCard
from extract.models.spec import ModelSpec

_FROM_LINE = ("group", "source", "family", "licence")
_COUNTS = ("source_size", "samples_seen")


def model_card(spec: ModelSpec, **known: Any) -> ModelCard:
    """Return the card of a model.

    Parameters
    ----------
    spec
        The line of the list; its options win over everything.
    known
        Card fields that the library knows; they win over what is derived from the name.
    """
    fields = {
        **derive(spec.library, spec.name),
        **{key: value for key, value in known.items() if value is not None},
    }
    fields |= {key: spec.options[key] for key in _FROM_LINE if key in spec.options}
    fields |= {key: spec.number(key) for key in _COUNTS if key in spec.options}
    source = str(fields["source"])
    # Weights of one's own have no tag; an id of the library's form shows the run all the same.
    fields["lineage"] = spec.options.get("lineage") or next(
        (found for name in (spec.name, spec.id) if (found := lineage_of(spec.library, name, source))), ""
    )
    fields |= {"id": spec.id, "library": spec.library, "name": spec.name}
    return ModelCard(**fields)
