"""Models onto the device, as many at a time as fit, each group of them a wave; the next are read meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from extract.models.base import Built, CompileError, Head, LoadedModel, Prepared
from extract.models.memory import free_cached, is_out_of_memory, without_traceback
from extract.passes.events import Event, Listener
from extract.passes.prefetch import Prefetcher
from extract.passes.residency import Residency
from extract.planning.options import RunOptions


@dataclass(eq=False)
class Member:
    """A loaded model and its heads by (class space digest, prompt set)."""

    prepared: Prepared
    model: LoadedModel
    heads: dict[tuple[str, str], Head] = field(default_factory=dict)
    largest: int = 0
    """Rows that fit the device's memory together with the others of its wave; 0 while nothing has run out."""

    @property
    def id(self) -> str:
        """The model's id."""
        return self.prepared.card.id


def waves(
    models: Sequence[Prepared],
    prefetcher: Prefetcher,
    options: RunOptions,
    notify: Listener,
    failed: Callable[[Prepared, Exception], None],
) -> Iterator[list[Member]]:
    """Load models until the device is full; yield them; let go of them; go on with the rest.

    Parameters
    ----------
    models
        In the order in which they are loaded.
    prefetcher
        Builds them.
    options
        Device, precision, how many may be resident.
    notify
        Called with what is loaded.
    failed
        Called with models that cannot be loaded; the others go on.

    Yields
    ------
    list of Member
        Usable until the next is asked for.
    """
    device = torch.device(options.device)
    wave: list[Member] = []
    residency = Residency(device, options)
    for prepared in models:
        notify(Event("loading", prepared.card.id))
        try:
            built = prefetcher.take(prepared)
        except Exception as error:  # noqa: BLE001  # a model that cannot be loaded must not stop the others
            failed(prepared, error)
            continue
        if wave and not residency.has_room(built.weight_bytes()):
            yield wave
            wave, residency = _released(wave, options), Residency(device, options)
        model, problem = _placed(built, residency, options, notify)
        if wave and problem is not None and is_out_of_memory(problem):
            # It may fit without the others.
            yield wave
            wave, residency = _released(wave, options), Residency(device, options)
            model, problem = _placed(built, residency, options, notify)
        if model is not None:
            wave.append(Member(prepared, model))
        elif problem is not None:
            failed(prepared, problem)
    if wave:
        yield wave
        _released(wave, options)


def _placed(
    built: Built, residency: Residency, options: RunOptions, notify: Listener
) -> tuple[LoadedModel | None, Exception | None]:
    """Return a model on the device, or why it is not there."""
    try:
        model = built.on(options.device, options.precision)
        if options.compile:
            _compile(model, options, notify)
        residency.add(model)
    except Exception as error:  # noqa: BLE001  # it is the caller's to handle
        problem = without_traceback(error)
    else:
        return model, None
    # The others need the room that it has taken so far.
    with contextlib.suppress(RuntimeError):  # of a lost device, which has no room to give
        built.module.to("cpu")
        free_cached(torch.device(options.device))
    return None, problem


def _compile(model: LoadedModel, options: RunOptions, notify: Listener) -> None:
    try:
        model.compile(options.batch_size)
    except CompileError as error:
        notify(Event("note", model.card.id, text=f"{model.card.id} runs without being compiled: {error}"))


def _released(wave: Sequence[Member], options: RunOptions) -> list[Member]:
    """Let go of models; returns the empty wave that is left."""
    for member in wave:
        member.model.release()
    free_cached(torch.device(options.device))
    if options.compile:
        # What was compiled for these models would count against the next ones.
        torch.compiler.reset()
    return []
