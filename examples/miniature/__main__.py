"""Build the miniature study: rendered images of ten classes and about two dozen tiny models trained on them.

It takes a minute or two on two cores, once; a build that was stopped continues where it stopped. It needs torch, timm
and open_clip (pip install '.[demo]'). Its numbers mean nothing outside it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from closerlook_common.console.argument_types import whole_number


def main() -> int:
    """Build it and say where it lies."""
    parser = argparse.ArgumentParser(prog="python -m examples.miniature", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("miniature"), metavar="DIR", help="where it goes (default: ./miniature)")
    add("--jobs", type=whole_number(1), metavar="N", help="processes (default: one a processor, at most 8)")
    add("--quick", action="store_true", help="a fortieth of the pictures and two short runs, to test the code")
    args = parser.parse_args()
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file, not a folder")
    from examples.miniature.build import build

    begun = time.monotonic()
    try:
        build(args.out, quick=args.quick, jobs=args.jobs, done=lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", flush=True)
        os._exit(130)  # what runs in other processes ends with this one
    print(f"The miniature is in {args.out}: models.txt, datasets.toml, study.toml, datasets and weights")
    print(f"({time.monotonic() - begun:.0f} s). Next: extract --study {args.out / 'study.toml'}")
    return 0


if __name__ == "__main__":  # the processes that it starts import this file too
    raise SystemExit(main())
