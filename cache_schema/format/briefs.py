"""The facts of a header that listings need: which store it is, of what, when it was sealed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from cache_schema.format.records import DatasetCard, ModelCard

RECORD_TEXTS = ("source_digest", "key", "prompt_set", "head_identity", "imported_from")
"""Texts of a record that listings need."""


class Brief(ABC):
    """A header in brief."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """The identity, 64 hexadecimal digits."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """The digest of the store, 64 hexadecimal digits."""

    @property
    @abstractmethod
    def written(self) -> str:
        """When the store was sealed."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """The number of rows in the seal."""

    @property
    @abstractmethod
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays."""

    @property
    @abstractmethod
    def details(self) -> dict[str, Any]:
        """The header's ``details``; not to be changed."""

    @property
    @abstractmethod
    def model_id(self) -> str:
        """The id of the model."""

    @property
    @abstractmethod
    def dataset_id(self) -> str:
        """The id of the dataset; empty for a head."""

    @abstractmethod
    def model_card(self) -> ModelCard:
        """Return the model's card."""

    @abstractmethod
    def dataset_card(self) -> DatasetCard | None:
        """Return the dataset's card as it was sealed; None for a head."""

    @abstractmethod
    def recorded(self, name: str) -> str:
        """Return one of ``RECORD_TEXTS``, empty if the record has no such text."""


class HeaderBrief(Brief):
    """The brief of a header that was read."""

    __slots__ = ("_header",)

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._header = header

    @property
    def identity(self) -> str:
        """The identity."""
        return str(self._header["identity"])

    @property
    def digest(self) -> str:
        """The digest of the store."""
        return str(self._header["seal"]["digest"])

    @property
    def written(self) -> str:
        """When the store was sealed."""
        return str(self._header["seal"]["written"])

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self._header["seal"]["n"])

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self._header["seal"]["arrays"])

    @property
    def details(self) -> dict[str, Any]:
        """The header's ``details``."""
        details: dict[str, Any] = self._header["details"]
        return details

    @property
    def model_id(self) -> str:
        """The id of the model."""
        return str(self._header["model"]["id"])

    @property
    def dataset_id(self) -> str:
        """The id of the dataset; empty for a head."""
        dataset = self._header["dataset"]
        return "" if dataset is None else str(dataset["id"])

    def model_card(self) -> ModelCard:
        """Return the model's card."""
        return ModelCard.from_record(self._header["model"])

    def dataset_card(self) -> DatasetCard | None:
        """Return the dataset's card as it was sealed; None for a head."""
        dataset = self._header["dataset"]
        return None if dataset is None else DatasetCard.from_record(dataset)

    def recorded(self, name: str) -> str:
        """Return one of ``RECORD_TEXTS``, empty if the record has no such text."""
        value = self._header["record"].get(name)
        return value if isinstance(value, str) else ""
