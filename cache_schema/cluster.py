"""Calls in, their results out as they finish: over a Ray cluster, where a lost worker or node costs a retry.

Both stages spread their work with it. Ray (extra ``ray``) is imported only when a cluster is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_schema.errors import UserError

RETRIES = 3
"""How often a call whose worker or node was lost is made again."""

IDLE_SECONDS = 0.5
KNOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Needs:
    """What one call takes of a node while it runs.

    Attributes
    ----------
    cpus, gpus
        Numbers of them.
    memory
        Bytes; Ray only counts them when it chooses a node.
    """

    cpus: int = 1
    gpus: int = 0
    memory: int = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus} cores", f"{self.gpus} GPU" if self.gpus else "", _gigabytes(self.memory)]
        return ", ".join(part for part in parts if part)


class LostWorkerError(RuntimeError):
    """The worker or node of a call was lost, and those of its retries too."""


@contextlib.contextmanager
def connected(address: str = "") -> Iterator[None]:
    """Connect to a cluster, and leave it at the end; a process that is connected already stays so.

    Parameters
    ----------
    address
        ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; empty takes the one that runs on this machine, else starts one.

    Raises
    ------
    UserError
        There is none.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    # Nobody who runs models has agreed to tell a company about it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(address)
        ray.init(address=address or None, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody answers at ``HOST:PORT``; Ray itself would go on trying for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def nodes() -> list[Mapping[str, float]]:
    """Return what each living node of the cluster has: ``CPU``, ``GPU``, ``memory`` (bytes)."""
    import ray

    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in told if node["Alive"]]


def check_fit(needs: Needs) -> None:
    """Raise `UserError` where no node has all that a call needs: Ray would wait for one for ever."""
    there = nodes()
    for node in there:
        if (
            node.get("CPU", 0) >= needs.cpus
            and node.get("GPU", 0) >= needs.gpus
            and node.get("memory", 0) >= needs.memory
        ):
            return
    have = "; ".join(
        str(Needs(int(node.get("CPU", 0)), int(node.get("GPU", 0)), int(node.get("memory", 0)))) for node in there
    )
    raise UserError(f"a job needs {needs}, and no node of the Ray cluster has that (they have: {have or 'nothing'})")


def run_calls(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    needs: Sequence[Needs],
    *,
    at_once: int = 0,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Any]]:
    """Make calls on the connected cluster.

    Parameters
    ----------
    function
        Importable on every node.
    calls
        Arguments of each call.
    needs
        Of each call.
    at_once
        Most calls that are made at a time; 0 leaves it to the cluster.
    idle
        Called about twice a second.

    Yields
    ------
    index : int
        Which call has finished.
    result
        What it returned, or the exception that ended it: its own, or `LostWorkerError`.

    Notes
    -----
    A call whose worker or node is lost is made again, ``RETRIES`` times; one that raises is not. Whoever closes the
    iterator early cancels what is left.
    """
    import ray

    for kind in set(needs):
        check_fit(kind)
    task = ray.remote(function)
    waiting: deque[int] = deque(range(len(calls)))
    pending: dict[Any, int] = {}
    try:
        while waiting or pending:
            while waiting and (not at_once or len(pending) < at_once):
                index = waiting.popleft()
                need = needs[index]
                chosen = task.options(
                    num_cpus=need.cpus, num_gpus=need.gpus, memory=need.memory or None,
                    max_retries=RETRIES, retry_exceptions=False,
                )  # fmt: skip
                pending[chosen.remote(*calls[index])] = index
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=IDLE_SECONDS)
            idle()
            for reference in ready:
                yield pending.pop(reference), _result(reference)
    finally:
        for reference in pending:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return LostWorkerError(f"its worker was lost {RETRIES + 1} times ({type(error).__name__})")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB of memory" if size else ""
