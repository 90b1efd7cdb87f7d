"""Which devices the words of a command line mean, what decodes beside them, and what they can compute in."""

from __future__ import annotations

import argparse
import os

from cache_schema.errors import UserError


def resolve_device(name: str, option: str = "--device") -> str:
    """Return the device that a name means, or say what there is."""
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not index.isdigit()):
        raise UserError(f"{option} takes auto, cpu, cuda or cuda:i, not {name!r}")
    if kind == "cpu":
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise UserError(f"{option} {name}: torch sees {count} CUDA devices here; take --device cpu or auto")
    return f"cuda:{int(index or 0)}"


def devices_of(args: argparse.Namespace) -> list[str]:
    """Return the devices of this machine that are to be used."""
    if not args.devices:
        return [resolve_device(args.device)]
    if args.devices == "all":
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in args.devices.split(",")]
    # As CUDA_VISIBLE_DEVICES has them, 0,1 are GPUs.
    found = [resolve_device(f"cuda:{name}" if name.isdigit() else name, "--devices") for name in names]
    if len({name.partition(":")[0] for name in found}) > 1:
        raise UserError(f"--devices {args.devices}: one run is either on GPUs or on the CPU")
    return found


def device_of(args: argparse.Namespace) -> tuple[str, int]:
    """Return the device, and how many processes decode for it where nobody says."""
    if args.engine == "ray":
        from extract.engines.ray_cluster import cluster_device

        return cluster_device(args.device, args.address)
    devices = devices_of(args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices[0] == "cpu":  # the models need cores themselves
        return devices[0], max(cores // 2 // len(devices), 1)
    return devices[0], max(cores // len(devices) - 1, 1)


def has_bf16(device: str) -> bool:
    """Tell whether a GPU computes in bfloat16; older ones only pretend to, and are slower than in float32."""
    import torch

    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
