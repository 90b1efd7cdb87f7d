"""Where the time of a pass goes, what bounds it, and how long it will take."""

from __future__ import annotations

from dataclasses import dataclass

from closerlook_common.console.terminal import counted

MEASURED_SECONDS = 3.0
MEASURED_BATCHES = 3
"""Rates are reported once both have gone by."""

WORTH_TELLING_SECONDS = 10.0
"""A pass that is shorter is over before anybody has read what bounds it."""


@dataclass
class Clock:
    """Seconds of a pass by where they went.

    Attributes
    ----------
    decode_wait
        The loop waited for the next batch.
    decode
        Decoding took, summed over processes; 0 where pixels were kept.
    processes
        That decode; 0 where the loop decodes by itself.
    transfer
        Batches were copied, in this process and on their way to the device; waiting for the models is no part of it.
    forward
        The models ran; on a GPU the device's own time from a batch's first kernel to the end of the copy of its
        outputs, which is known a little later.
    write
        Stores were written, in a thread next to the loop; waiting for a core or the disk counts too. The last shard of
        a store is compressed as it is sealed, after the pass: that is not known here.
    write_cpu
        Of that, the time on a core.
    write_wait
        The loop waited for the writer.
    wall
        The whole pass.
    images, forwarded
        Images through the loop, and images times models whose ``forward`` is known.
    batches
        Through the loop.
    """

    decode_wait: float = 0.0
    decode: float = 0.0
    transfer: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    write_cpu: float = 0.0
    write_wait: float = 0.0
    wall: float = 0.0
    images: int = 0
    forwarded: int = 0
    batches: int = 0
    processes: int = 0

    def record(self) -> dict[str, float | int]:
        """Return rate and shares of the whole time, JSON-ready.

        ``device_share`` is how long the device was busy; ``decode_share`` how long a decoding process was, on
        average.
        """
        wall = max(self.wall, 1e-9)
        return {
            "images": self.images,
            "seconds": round(self.wall, 3),
            "images_per_second": round(self.images / wall, 2),
            "device_share": round(self.forward / wall, 4),
            "decode_share": round(self.decode / max(self.processes, 1) / wall, 4),
            **{
                f"{name}_share": round(getattr(self, name) / wall, 4)
                for name in ("decode_wait", "transfer", "forward", "write", "write_cpu", "write_wait")
            },
        }


def finished_line(clock: Clock) -> str:
    """Return a finished pass in a line."""
    waits = {"decoding": clock.decode_wait, "the models": clock.forward, "writing": clock.write_wait}
    bound = max(waits, key=lambda name: waits[name])
    shares = clock.record()
    return (
        f"{shares['images_per_second']:,.0f} images/s, bound by {bound} (device busy {shares['device_share']:.0%},"
        f" decoding {shares['decode_share']:.0%}, transfer {shares['transfer_share']:.0%}, writing"
        f" {shares['write_share']:.0%}; waited {shares['decode_wait_share']:.0%} for images,"
        f" {shares['write_wait_share']:.0%} for the writer)"
    )


def first_line(clock: Clock, n_images: int, n_models: int, processes: int) -> str:
    """Return what bounds a pass that has just begun, from its first batches; empty where it will be over soon.

    Parameters
    ----------
    clock
        Of the batches so far.
    n_images
        Of the whole pass.
    n_models
        That run side by side.
    processes
        That decode; 0 where the loop decodes by itself.
    """
    forward = clock.forward / max(clock.forwarded, 1) * n_models
    decode = clock.decode / max(clock.images, 1) / max(processes, 1)
    # A loop that decodes by itself does one after the other.
    each = max(forward + (decode if processes == 0 else 0.0), decode)
    left = each * (n_images - clock.images)
    if not forward or left + clock.wall < WORTH_TELLING_SECONDS:
        return ""
    models = f"{1 / forward:,.0f} images/s through {counted(n_models, 'model')}"
    if not decode:
        return f"{models}, the decoded pixels are kept: bound by the models, about {duration(left)}"
    where = f"{processes} process{'es' if processes > 1 else ''}" if processes else "this process"
    bound = "decoding (--workers, --pixel-cache)" if decode > forward else "the models"
    return f"decodes {1 / decode:,.0f} images/s in {where}, {models}: bound by {bound}, about {duration(left)}"


def duration(seconds: float) -> str:
    """Return seconds as ``3 min 05 s`` or ``2 h 10 min``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute:02} min"
    return f"{minute} min {second:02} s" if minute else f"{second} s"
