"""What one extraction was asked for, as a command line or a call gives it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from extract.datasets import DatasetSpec
from extract.libraries import ModelSpec


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A request; what is None is filled in from the study, else from the defaults of ``extract``.

    Attributes
    ----------
    models
        Models that are given as such, besides those of ``model_list``.
    specs
        Datasets that are given as such, besides those of ``dataset`` and ``datasets``.
    model_list
        Files of models, or ``@NAME``.
    dataset
        ``NAME=PATH`` or ``NAME=PATH:CLASSES``.
    datasets
        A ``datasets.toml``.
    reference
        ``NAME`` or ``NAME:per_class=N``.
    prompts
        Prompt sets, comma-separated.
    words
        ``FILE`` or ``FILE:SET``; the study's when empty.
    study
        A study file, or ``@NAME``.
    cache, store, features_dtype, arrays, device, devices, precision, batch_size, workers, resident, pixel_cache,
    pixel_cache_gb, compile, engine, address, shard, dry_run
        As the options of ``extract``.
    """

    models: tuple[ModelSpec, ...] = ()
    specs: tuple[DatasetSpec, ...] = ()
    model_list: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    datasets: Path | None = None
    reference: tuple[str, ...] = ()
    prompts: str | None = None
    words: tuple[str, ...] = ()
    study: str | None = None
    cache: Path | None = None
    store: str | None = None
    features_dtype: str | None = None
    arrays: str | None = None
    device: str = "auto"
    devices: str = ""
    precision: str | None = None
    batch_size: str = "auto"
    workers: str = "auto"
    resident: int = 0
    pixel_cache: Path | None = None
    pixel_cache_gb: float = 20.0
    compile: bool = False
    engine: str = "local"
    address: str = ""
    shard: str = "0/1"
    dry_run: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """Return the request of a command line; options that the command does not have keep their defaults."""
        given: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)}
        lists = {name: tuple(given.get(name) or ()) for name in ("model_list", "dataset", "reference")}
        return cls(**given | lists)
