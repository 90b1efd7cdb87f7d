"""The cache: what a store of model outputs is, how to write one, how to read one. No torch, no model.

The format stands lowest (``schema``, ``records``, ``naming``, ``identities``, ``seal`` ...), then the backends; places
and ``store`` read, ``builder`` and ``writer`` write, ``cache`` finds. A contract in ``pyproject.toml`` holds the order.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_schema.cache import Cache as Cache
    from cache_schema.cache import open_cache as open_cache
    from cache_schema.failures import Failure as Failure
    from cache_schema.failures import clear_failure as clear_failure
    from cache_schema.failures import record_failure as record_failure
    from cache_schema.identities import IDENTITY_VERSION as IDENTITY_VERSION
    from cache_schema.identities import identity as identity
    from cache_schema.identities import prediction_identity as prediction_identity
    from cache_schema.kinds.heads import HeadStore as HeadStore
    from cache_schema.kinds.heads import write_head as write_head
    from cache_schema.kinds.references import ReferenceArrays as ReferenceArrays
    from cache_schema.kinds.references import ReferenceStore as ReferenceStore
    from cache_schema.kinds.references import write_reference as write_reference
    from cache_schema.kinds.summaries import SummaryStore as SummaryStore
    from cache_schema.kinds.summaries import write_summary as write_summary
    from cache_schema.kinds.texts import TextStore as TextStore
    from cache_schema.kinds.texts import write_texts as write_texts
    from cache_schema.naming import published as published
    from cache_schema.naming import slug as slug
    from cache_schema.naming import store_name as store_name
    from cache_schema.records import DatasetCard as DatasetCard
    from cache_schema.records import ModelCard as ModelCard
    from cache_schema.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from cache_schema.staging import clean_stale as clean_stale
    from cache_schema.store import Block as Block
    from cache_schema.store import PredictionStore as PredictionStore
    from cache_schema.store import Store as Store
    from cache_schema.store import open_store as open_store
    from cache_schema.writer import StoreWriter as StoreWriter
    from cache_schema.writer import write_store as write_store

_MODULES = {
    "cache": ("Cache", "open_cache"),
    "failures": ("Failure", "clear_failure", "record_failure"),
    "identities": ("IDENTITY_VERSION", "identity", "prediction_identity"),
    "naming": ("published", "slug", "store_name"),
    "records": ("DatasetCard", "ModelCard"),
    "schema": ("SCHEMA_VERSION",),
    "kinds.heads": ("HeadStore", "write_head"),
    "kinds.references": ("ReferenceArrays", "ReferenceStore", "write_reference"),
    "kinds.summaries": ("SummaryStore", "write_summary"),
    "kinds.texts": ("TextStore", "write_texts"),
    "staging": ("clean_stale",),
    "store": ("Block", "PredictionStore", "Store", "open_store"),
    "writer": ("StoreWriter", "write_store"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_WHERE)
