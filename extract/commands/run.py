"""Run the models of a list over datasets; keep logits, features, labels and heads in sealed stores.

A second run with the same list does nothing. A run that was stopped continues where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from closerlook_common.console.argument_types import real_number, whole_number
from extract.planning.arrays import ARRAYS

EXAMPLES = """\
examples:
  extract --model-list models.txt
  extract --model-list models.txt --dataset pets=/data/pets --cache cache
  extract --model-list @closer-look --datasets datasets.toml --device cuda --store hdf5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    what = parser.add_argument_group("what to run")
    what.add_argument("--model-list", action="append", metavar="FILE|@NAME", help="models, one a line; may be repeated")
    what.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME=PATH[:CLASSES]",
        help="a folder of images, perhaps with its classes (imagenet-1k, folders, a .txt file), "
        "or python:FILE.py:function, which is run; may be repeated",
    )
    what.add_argument("--datasets", type=Path, metavar="TOML", help="datasets (default: datasets.toml here)")
    what.add_argument(
        "--reference", action="append", default=[], metavar="NAME[:per_class=N]",
        help="gather the statistics of this training set, with a bank of N images a class (default 50)",
    )  # fmt: skip
    what.add_argument(
        "--prompts", metavar="SET[,SET...]",
        help="prompt sets of zero-shot models: built-in, a file, or SET@NAMES with other class names; logits are stored"
        " of the first, heads of all (default: openai-80)",
    )  # fmt: skip
    what.add_argument(
        "--words", action="append", default=[], metavar="FILE[:SET]",
        help="also embed a list of words, one a line, with zero-shot models: negative labels for 'analyze ood"
        " --negatives words-FILE' (default set: photo-1); may be repeated",
    )  # fmt: skip
    what.add_argument("--study", metavar="TOML|@NAME", help="a study file in place of lists and datasets")
    add("--cache", type=Path, metavar="DIR", help="where the stores lie (default: the study's, else cache)")
    add("--store", choices=("zarr", "hdf5"), help="format of the stores (default: zarr)")
    add("--features-dtype", choices=("float16", "float32"), help="default: float16")
    described = "; ".join(f"{name}: {further.what}" for name, further in ARRAYS.items())
    add("--arrays", metavar="NAME[,NAME...]", help=f"store more than usual; {described}")
    how = parser.add_argument_group("how to run it")
    how.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="default: auto")
    how.add_argument(
        "--devices", default="", metavar="LIST", help="several, as 0,1 or cuda:0,cuda:1 or all: a process each"
    )
    how.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"),
        help="of the models' bodies; heads are always computed in fp32 (auto: bf16 on a GPU that has it, else fp32)",
    )  # fmt: skip
    how.add_argument("--batch-size", default="auto", metavar="auto|N", help="auto: 256 on a GPU, 32 on the CPU")
    how.add_argument("--workers", default="auto", metavar="auto|N", help="decoding processes; 0 decodes in this one")
    how.add_argument(
        "--resident",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="models on a device at once (0: as many as fit)",
    )
    how.add_argument(
        "--pixel-cache", type=Path, metavar="DIR", help="keep decoded pixels here, for later passes and runs"
    )
    how.add_argument(
        "--pixel-cache-gb", type=real_number(above=0), default=20.0, metavar="GB", help="what it may hold (default: 20)"
    )
    how.add_argument(
        "--compile", action="store_true", help="compile the models (pays for slow ones and large datasets)"
    )
    how.add_argument("--engine", default="local", choices=("local", "ray"), help="default: local")
    how.add_argument("--address", default="", metavar="ADDRESS", help="of the Ray cluster (default: the local one)")
    how.add_argument("--shard", default="0/1", metavar="i/n", help="take every n-th group of models, for job arrays")
    how.add_argument("--dry-run", action="store_true", help="print what would run")


def run(args: argparse.Namespace) -> int:
    """Plan, run, summarise; returns 0 only if nothing failed."""
    from extract.commands.request import RunRequest
    from extract.commands.session import run_session

    return run_session(RunRequest.of(args))
