"""Run calls on a Ray cluster and return their results as they finish; retry calls whose worker or node was lost.

Both stages use it. Ray (extra ``ray``) is imported only when a cluster is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError

RETRIES = 3
"""How often a call is retried after its worker or node was lost."""

ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")
SHORT_PATH = 25
IDLE_SECONDS = 0.5
KNOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Needs:
    """Resources that one call needs on a node.

    Attributes
    ----------
    cpus, gpus
        Number of cores and of devices.
    memory
        Bytes. Ray counts them when it chooses a node, and does not enforce them.
    """

    cpus: int = 1
    gpus: int = 0
    memory: int = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus} cores", f"{self.gpus} GPU" if self.gpus else "", _gigabytes(self.memory)]
        return ", ".join(part for part in parts if part)


class LostWorkerError(RuntimeError):
    """The worker or node of a call was lost, and so were those of its retries."""


@contextlib.contextmanager
def connected(address: str = "") -> Iterator[None]:
    """Connect to a cluster and disconnect at the end; keep a connection that existed before.

    Parameters
    ----------
    address
        ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``. Empty uses the cluster that this user started on this machine,
        or starts one. A cluster that somebody else started is joined only by its address: what it returns is
        unpickled.

    Raises
    ------
    UserError
        No cluster answers.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    # Users have not agreed to send usage statistics to a company.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address or None}
        if not address and not os.environ.get("RAY_ADDRESS") and not has_own_cluster():
            options = {"address": "local", "_temp_dir": stack.enter_context(_private_folder())}
        try:
            _check_port(address)
            ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
        stack.callback(ray.shutdown)
        yield


def has_own_cluster() -> bool:
    """Return whether this user started a cluster on this machine.

    Ray keeps its address in a folder that every user may write to, so only a file of this user's or root's counts.
    """
    try:
        found = ADDRESS_FILE.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.getuid())


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """Make a folder for a cluster's sockets and logs that only this user can enter; remove it at the end."""
    base = tempfile.gettempdir()
    # Ray's sockets lie below it, and the path of a socket has 107 bytes at most.
    folder = tempfile.mkdtemp(prefix="closerlook-ray-", dir=base if len(base) < SHORT_PATH else "/tmp")
    try:
        yield f"{folder}/r"  # Ray opens its own folder to everybody
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_port(address: str) -> None:
    """Raise OSError if nothing listens at ``HOST:PORT``; Ray itself would retry for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def nodes() -> list[Mapping[str, float]]:
    """Return the resources of each live node: ``CPU``, ``GPU``, ``memory`` (bytes)."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in found if node["Alive"]]


def check_fit(needs: Needs) -> None:
    """Raise `UserError` if no node has what a call needs; Ray would wait forever."""
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
) -> Generator[tuple[int, Any]]:
    """Run calls on the connected cluster.

    Parameters
    ----------
    function
        Importable on every node.
    calls
        Arguments of each call.
    needs
        Of each call.
    at_once
        Largest number of calls in flight; 0 lets the cluster decide.
    idle
        Called about twice a second.

    Yields
    ------
    index : int
        Which call finished.
    result
        Its return value, or its exception: the one it raised, or `LostWorkerError`.

    Notes
    -----
    A call is retried up to ``RETRIES`` times if its worker or node is lost, never if it raises. Closing the iterator
    early cancels the remaining calls.
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
