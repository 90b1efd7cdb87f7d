"""A model's card: what its name and its library tell, then what the line of the list says."""

from __future__ import annotations

from typing import Any

from cache_schema.records import ModelCard
from extract.zoo.cards import derive
from extract.zoo.model_list import ModelSpec

_FROM_LINE = ("group", "source", "family", "licence")
_COUNTS = ("source_size", "samples_seen")


def model_card(spec: ModelSpec, **known: Any) -> ModelCard:
    """Return the card of a model.

    Parameters
    ----------
    spec
        The line of the list; its options win over everything.
    known
        Card fields that the library tells; they win over what is derived from the name.
    """
    fields = {
        **derive(spec.library, spec.name),
        **{key: value for key, value in known.items() if value is not None},
    }
    fields |= {key: spec.options[key] for key in _FROM_LINE if key in spec.options}
    fields |= {key: spec.number(key) for key in _COUNTS if key in spec.options}
    fields |= {"id": spec.id, "library": spec.library, "name": spec.name}
    return ModelCard(**fields)
