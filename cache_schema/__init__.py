"""The cache: what a store of model outputs is, how to write one, how to read one. No torch, no model.

``format`` says what a store is, ``backends`` know Zarr and HDF5, ``reading`` finds and reads stores, ``writing`` makes
them, ``copying`` and ``importing`` bring them from elsewhere. A contract in ``pyproject.toml`` holds this order.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_schema.format.failures import Failure as Failure
    from cache_schema.format.failures import clear_failure as clear_failure
    from cache_schema.format.failures import record_failure as record_failure
    from cache_schema.format.identities import IDENTITY_VERSION as IDENTITY_VERSION
    from cache_schema.format.identities import identity as identity
    from cache_schema.format.identities import prediction_identity as prediction_identity
    from cache_schema.format.naming import published as published
    from cache_schema.format.naming import slug as slug
    from cache_schema.format.naming import store_name as store_name
    from cache_schema.format.records import DatasetCard as DatasetCard
    from cache_schema.format.records import ModelCard as ModelCard
    from cache_schema.format.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from cache_schema.reading.cache import Cache as Cache
    from cache_schema.reading.cache import open_cache as open_cache
    from cache_schema.reading.kinds.heads import HeadStore as HeadStore
    from cache_schema.reading.kinds.references import ReferenceArrays as ReferenceArrays
    from cache_schema.reading.kinds.references import ReferenceStore as ReferenceStore
    from cache_schema.reading.kinds.summaries import SummaryStore as SummaryStore
    from cache_schema.reading.kinds.texts import TextStore as TextStore
    from cache_schema.reading.open_stores import open_store as open_store
    from cache_schema.reading.store import Block as Block
    from cache_schema.reading.store import PredictionStore as PredictionStore
    from cache_schema.reading.store import Store as Store
    from cache_schema.writing.kinds.heads import write_head as write_head
    from cache_schema.writing.kinds.merging import merge_references as merge_references
    from cache_schema.writing.kinds.references import write_reference as write_reference
    from cache_schema.writing.kinds.summaries import write_summary as write_summary
    from cache_schema.writing.kinds.texts import write_texts as write_texts
    from cache_schema.writing.staging import clean_stale as clean_stale
    from cache_schema.writing.writer import StoreWriter as StoreWriter
    from cache_schema.writing.writer import write_store as write_store
    from closerlook_common.errors import CacheError as CacheError
    from closerlook_common.errors import CloserlookError as CloserlookError
    from closerlook_common.errors import CorruptStoreError as CorruptStoreError
    from closerlook_common.errors import NewerSchemaError as NewerSchemaError
    from closerlook_common.errors import StoreExistsError as StoreExistsError
    from closerlook_common.errors import StoreNotFoundError as StoreNotFoundError
    from closerlook_common.errors import UnsealedStoreError as UnsealedStoreError
    from closerlook_common.errors import UserError as UserError
else:
    from closerlook_common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cache_schema.reading.cache": ("Cache", "open_cache"),
            "cache_schema.format.failures": ("Failure", "clear_failure", "record_failure"),
            "cache_schema.format.identities": ("IDENTITY_VERSION", "identity", "prediction_identity"),
            "cache_schema.format.naming": ("published", "slug", "store_name"),
            "cache_schema.format.records": ("DatasetCard", "ModelCard"),
            "cache_schema.format.schema": ("SCHEMA_VERSION",),
            "cache_schema.reading.kinds.heads": ("HeadStore",),
            "cache_schema.writing.kinds.heads": ("write_head",),
            "cache_schema.reading.kinds.references": ("ReferenceArrays", "ReferenceStore"),
            "cache_schema.writing.kinds.merging": ("merge_references",),
            "cache_schema.writing.kinds.references": ("write_reference",),
            "cache_schema.reading.kinds.summaries": ("SummaryStore",),
            "cache_schema.writing.kinds.summaries": ("write_summary",),
            "cache_schema.reading.kinds.texts": ("TextStore",),
            "cache_schema.writing.kinds.texts": ("write_texts",),
            "cache_schema.writing.staging": ("clean_stale",),
            "cache_schema.reading.open_stores": ("open_store",),
            "cache_schema.reading.store": ("Block", "PredictionStore", "Store"),
            "cache_schema.writing.writer": ("StoreWriter", "write_store"),
            "closerlook_common.errors": (
                "CacheError",
                "CloserlookError",
                "CorruptStoreError",
                "NewerSchemaError",
                "StoreExistsError",
                "StoreNotFoundError",
                "UnsealedStoreError",
                "UserError",
            ),
        },
    )

__all__ = [
    "IDENTITY_VERSION",
    "SCHEMA_VERSION",
    "Block",
    "Cache",
    "CacheError",
    "CloserlookError",
    "CorruptStoreError",
    "DatasetCard",
    "Failure",
    "HeadStore",
    "ModelCard",
    "NewerSchemaError",
    "PredictionStore",
    "ReferenceArrays",
    "ReferenceStore",
    "Store",
    "StoreExistsError",
    "StoreNotFoundError",
    "StoreWriter",
    "SummaryStore",
    "TextStore",
    "UnsealedStoreError",
    "UserError",
    "clean_stale",
    "clear_failure",
    "identity",
    "merge_references",
    "open_cache",
    "open_store",
    "prediction_identity",
    "published",
    "record_failure",
    "slug",
    "store_name",
    "write_head",
    "write_reference",
    "write_store",
    "write_summary",
    "write_texts",
]
