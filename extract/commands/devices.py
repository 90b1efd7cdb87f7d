"""Which devices the words of a command line mean, how many processes decode for them, and what they can compute in."""

from __future__ import annotations

import os

from closerlook_common.console.argument_types import parse_whole
from closerlook_common.errors import UserError
from extract.commands.request import RunRequest


def resolve_device(name: str, option: str = "`device`") -> str:
    """Return the device that a name means, or say what there is."""
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not _is_index(index)):
        raise UserError(f"{option} takes auto, cpu, cuda or cuda:i, not {name!r}")
    if kind == "cpu":
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise UserError(f"{option} {name}: torch sees {count} CUDA devices here; take `device` cpu or auto")
    return f"cuda:{int(index or 0)}"


def _is_index(text: str) -> bool:
    return (parse_whole(text) or 0) >= 0 and parse_whole(text) is not None


def devices_of(request: RunRequest) -> list[str]:
    """Return the devices of this machine that are to be used."""
    if not request.devices:
        return [resolve_device(request.device)]
    if request.devices == "all":
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in request.devices.split(",")]
    # As CUDA_VISIBLE_DEVICES has them, 0,1 are GPUs.
    found = [resolve_device(f"cuda:{name}" if _is_index(name) else name, "`devices`") for name in names]
    if len({name.partition(":")[0] for name in found}) > 1:
        raise UserError(f"`devices` {request.devices}: one run is either on GPUs or on the CPU")
    return found


def device_of(request: RunRequest) -> tuple[str, int]:
    """Return the device, and how many processes decode for it where no option sets them."""
    if request.engine == "ray":
        from extract.engines.ray_cluster import cluster_device

        return cluster_device(request.device, request.address)
    devices = devices_of(request)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices[0] == "cpu":  # the models need cores themselves
        return devices[0], max(cores // 2 // len(devices), 1)
    return devices[0], max(cores // len(devices) - 1, 1)


def has_bf16(device: str) -> bool:
    """Return whether a GPU computes in bfloat16; older ones only pretend to, and are slower than in float32."""
    import torch

    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
