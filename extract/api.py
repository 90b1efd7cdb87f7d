"""What a script or a notebook calls: models run over datasets into a cache, and one model loaded by name."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cache_schema.reading.cache import Cache, open_cache
from closerlook_common.errors import IncompleteWarning, UserError
from closerlook_common.plugins import load_files
from extract.datasets import DatasetSpec, read_datasets_toml, spec_from_table
from extract.libraries import ModelSpec, names
from extract.plugin_kinds import REGISTRIES
from extract.zoo.model_list import parse_line, read_model_list

if TYPE_CHECKING:
    from extract.models.base import LoadedModel

__all__ = ["DatasetSpec", "Extraction", "ModelSpec", "load_model", "run"]

Models = str | Path | ModelSpec
Datasets = str | Path | Mapping[str, str | Path | Mapping[str, Any] | Sequence[Any] | Any] | Sequence[DatasetSpec]


@dataclass(frozen=True)
class Extraction:
    """What came of a run.

    Attributes
    ----------
    cache
        Folder of the stores.
    done
        (model, dataset) that were run now.
    sealed
        Stores that were there before.
    skipped
        (model, dataset, reason) of what does not apply, as a classifier on other classes.
    failed
        (model, dataset, reason); the dataset is empty where a model failed as a whole, the model where a dataset did.
    """

    cache: Path
    done: tuple[tuple[str, str], ...]
    sealed: int
    skipped: tuple[tuple[str, str, str], ...]
    failed: tuple[tuple[str, str, str], ...]

    def open(self) -> Cache:
        """Open the cache."""
        return open_cache(self.cache)


def run(
    models: Models | Sequence[Models] | None = None,
    datasets: Datasets | None = None,
    cache: str | Path | None = None,
    *,
    study: str | Path | None = None,
    reference: str | Sequence[str] = (),
    prompts: str | Sequence[str] | None = None,
    words: str | Path | Sequence[str | Path] = (),
    store: str | None = None,
    features_dtype: str | None = None,
    arrays: str | Sequence[str] | None = None,
    device: str = "auto",
    devices: str | Sequence[str] = "",
    precision: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    resident: int = 0,
    pixel_cache: str | Path | None = None,
    pixel_cache_gb: float = 20.0,
    compile: bool = False,
    engine: str = "local",
    address: str = "",
    shard: str = "0/1",
    plugins: str | Path | Sequence[str | Path] = (),
    verbose: bool = False,
) -> Extraction:
    """Run every model over every dataset into a cache, as ``extract`` does; what is sealed already is left alone.

    Parameters
    ----------
    models
        One or several of: a line of a model list (``"timm:resnet50.a1_in1k"``), a file of such lines, ``"@NAME"`` for
        a built-in list, a ``ModelSpec``.
    datasets
        A ``datasets.toml``; or name -> folder, or name -> a table as ``datasets.toml`` has it, or name -> an object
        whose items are ``(image, label)`` (of torchvision, Hugging Face, WILDS, a list); or ``DatasetSpec`` s.
    cache
        Folder of the stores; the study's, else ``cache``, when None.
    study
        A study file or ``"@NAME"`` in place of models and datasets.
    reference
        Names of training sets whose statistics are gathered; ``NAME:per_class=N`` keeps a bank of N images a class.
    prompts
        Prompt sets of zero-shot models; logits are stored of the first, heads of all. ``openai-80`` when None.
    words
        Files of words, one a line, that zero-shot models embed besides (``FILE:SET`` names the prompt set, else
        ``photo-1``): heads of the class spaces ``words-FILE``, such as negative labels.
    store
        ``zarr`` (when None) or ``hdf5``.
    features_dtype
        ``float16`` (when None) or ``float32``.
    arrays
        What to store besides: ``texts``, of text heads the embeddings of every template; ``unit``, of references the
        sums of features at unit length and the keys of the bank's rows; ``patches``, of CLIP-like models the best
        patch of each image; ``tokens``, of vision transformers class token and mean of the patches before the
        projection; ``blocks``, the class tokens after four blocks; ``views``, of 64 random crops of each image the
        features of the six whose softmax has the lowest entropy. The study's when None.
    device, devices
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; or several, a process each.
    precision
        ``auto`` (when None), ``fp32``, ``bf16`` or ``fp16``.
    batch_size, workers
        Rows of a batch and decoding processes; chosen for the device when None.
    resident
        Models on a device at once; as many as fit when 0.
    pixel_cache, pixel_cache_gb
        Folder of decoded pixels for later passes and runs, and what it may hold.
    compile
        Compile the models.
    engine, address
        ``local``, or ``ray`` and the address of the cluster.
    shard
        ``i/n`` takes every n-th group of models, for job arrays.
    plugins
        Files of plug-ins to run and use (CONTRIBUTING.md, "Plug-ins").
    verbose
        Print on standard error what the command prints.

    Returns
    -------
    Extraction

    Raises
    ------
    UserError
        A name or an option is not known, a file cannot be read, or nothing is left to run.

    Warns
    -----
    IncompleteWarning
        Something failed; ``Extraction.failed`` has the reasons.

    Notes
    -----
    Decoding and devices run in processes that import the main module again: call this below
    ``if __name__ == "__main__":`` in a script.

    Examples
    --------
    >>> closerlook.run(models="timm:resnet50.a1_in1k", datasets={"pets": "/data/pets"})    # doctest: +SKIP
    """
    from extract.commands.request import RunRequest
    from extract.commands.session import carry_out
    from extract.planning.plan import SEALED, SKIPPED

    load_files([plugins] if isinstance(plugins, str | Path) else plugins, REGISTRIES)
    if study is None and (models is None or datasets is None):
        raise UserError("`models` and `datasets`, or a `study`, say what to run")
    for name, value, known in (
        ("store", store, (None, "zarr", "hdf5")),
        ("features_dtype", features_dtype, (None, "float16", "float32")),
        ("precision", precision, (None, "auto", "fp32", "bf16", "fp16")),
        ("engine", engine, ("local", "ray")),
    ):
        if value not in known:
            raise UserError(f"`{name}` {value!r}: choose {', '.join(filter(None, known))}")
    sets = prompts if prompts is None or isinstance(prompts, str) else ",".join(prompts)
    request = RunRequest(
        models=tuple(model_specs(models)) if models is not None else (),
        specs=tuple(dataset_specs(datasets)) if datasets is not None else (),
        reference=(reference,) if isinstance(reference, str) else tuple(reference),
        prompts=sets,
        words=tuple(map(str, [words] if isinstance(words, str | Path) else words)),
        study=None if study is None else os.fspath(study),
        cache=None if cache is None else Path(cache),
        store=store,
        features_dtype=features_dtype,
        arrays=arrays if arrays is None or isinstance(arrays, str) else ",".join(arrays),
        device=device,
        devices=devices if isinstance(devices, str) else ",".join(devices),
        precision=precision,
        batch_size="auto" if batch_size is None else str(batch_size),
        workers="auto" if workers is None else str(workers),
        resident=resident,
        pixel_cache=None if pixel_cache is None else Path(pixel_cache),
        pixel_cache_gb=pixel_cache_gb,
        compile=compile,
        engine=engine,
        address=address,
        shard=shard,
    )
    outcome = carry_out(request, Console(stderr=True, quiet=not verbose))
    assert outcome.tally is not None
    jobs = outcome.plan.jobs
    skipped = tuple((job.model.card.id, job.dataset.card.id, job.reason) for job in jobs if job.state == SKIPPED)
    if outcome.failed:
        text = "; ".join(f"{' on '.join(filter(None, (model, data)))}: {why}" for model, data, why in outcome.failed)
        warnings.warn(f"failed: {text}", IncompleteWarning, stacklevel=2)
    return Extraction(
        outcome.options.cache,
        tuple(outcome.tally.done),
        outcome.plan.count(SEALED) + outcome.tally.sealed,
        skipped,
        tuple(outcome.failed),
    )


def load_model(model: str | ModelSpec, *, device: str = "auto", precision: str = "fp32", **options: Any) -> LoadedModel:
    """Load one model as ``extract`` runs it: its own preprocessing, weights checked, in evaluation mode.

    Parameters
    ----------
    model
        ``LIBRARY:NAME``, as a line of a model list has it, perhaps with its options.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    precision
        Of the body: ``fp32``, ``bf16`` or ``fp16``; the head is always computed in fp32.
    **options
        Options of a line: ``checkpoint="mine.safetensors"``, ``classes=...``, ``id=...``.

    Returns
    -------
    LoadedModel
        With ``forward(pixels)``, ``head(class_space)``, ``preprocessing`` and ``card``.

    Raises
    ------
    UserError
        The name or an option is not known, stands for several models, or the weights cannot be had.

    Examples
    --------
    >>> closerlook.load_model("timm:resnet50.a1_in1k").card.parameters    # doctest: +SKIP
    """
    from extract.commands.devices import resolve_device
    from extract.libraries import load, prepare
    from extract.models.base import PRECISIONS

    if precision not in PRECISIONS:
        raise UserError(f"`precision` {precision!r}: choose {', '.join(PRECISIONS)}")
    if isinstance(model, ModelSpec):
        if options:
            raise UserError(f"options ({', '.join(options)}) go with a name; a ModelSpec has its own")
        spec = model
    else:
        words = [f"{key}={_text(value)}" for key, value in options.items()]
        found = parse_line(shlex.join([*shlex.split(model), *words]), model)
        if len(found) != 1:
            raise UserError(f"{model!r} stands for {len(found)} models; name one")
        spec = found[0]
    return load(prepare(spec), device=resolve_device(device), precision=precision)


def model_specs(models: Models | Sequence[Models]) -> list[ModelSpec]:
    """Return the models that a call names; see ``run``."""
    if isinstance(models, str | Path | ModelSpec):
        models = [models]
    found: list[ModelSpec] = []
    for model in models:
        if isinstance(model, ModelSpec):
            found.append(model)
        elif isinstance(model, str) and model.partition(":")[0] in names():
            found += parse_line(model, model)
        else:
            found += read_model_list(model)
    return found


def dataset_specs(datasets: Datasets) -> list[DatasetSpec]:
    """Return the datasets that a call names; see ``run``."""
    if isinstance(datasets, str | Path):
        return read_datasets_toml(Path(datasets))
    if not isinstance(datasets, Mapping):
        return list(datasets)
    specs = []
    for name, given in datasets.items():
        where = f"dataset {name}"
        if isinstance(given, str | Path | Mapping):
            table = _plain(given) if isinstance(given, Mapping) else {"path": os.fspath(given)}
            specs.append(spec_from_table(name, table, Path.cwd(), where=where))
        else:  # an object with items
            specs.append(DatasetSpec(name=name, path=Path(), where=where, data=given))
    return specs


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: os.fspath(value) if isinstance(value, Path) else value for key, value in table.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
