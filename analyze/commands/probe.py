"""Fit heads on stored features of encoders that have none: a linear probe, nearest neighbours, on few images a class.

A probe is written as a model of its own, such as dinov2[linear], which every other command takes as any model.
Nothing is overwritten; what is there already is left as it is.
"""

from __future__ import annotations

import argparse
import math

from closerlook_common.console.argument_types import real_number, whole_number
from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from analyze.probes.options import FEATURES

    parser.add_argument("cache", help="folder of the cache")
    fitted_on = "training set, or its reference store's bank, to fit on"
    parser.add_argument("--reference", required=True, metavar="DATASET", help=fitted_on)
    parser.add_argument("--methods", default="linear,knn", metavar="NAMES", help="linear, knn (default: both)")
    parser.add_argument("--shots", metavar="N[,N...]", help="images a class to fit on (default: the whole reference)")
    parser.add_argument("--seeds", type=whole_number(1), default=3, help="draws of each number of shots (default: 3)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the held-out rows and the first draw")
    parser.add_argument(
        "--held-out", type=real_number(above=0, below=1), default=0.1, metavar="SHARE",
        help="share of each class of the reference that the penalty is chosen on (default: 0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--l2-path", metavar="L2[,L2...]|LOW:HIGH:N",
        help="strengths of the penalty, 1/C of scikit-learn: a list, or N of equal ratio (default: CLIP's search,"
        " 1e-6 to 1e6)",
    )  # fmt: skip
    parser.add_argument(
        "--features", default="plain", choices=FEATURES,
        help="what a probe is fitted on: features as they are, or (linear) at unit length; the class token before the"
        " projection, or that and the mean of the patches ('extract --arrays tokens'); the class token after one of"
        " four blocks ('extract --arrays blocks') (default: plain)",
    )  # fmt: skip
    parser.add_argument("--k", type=whole_number(1), default=20, help="neighbours of knn (default: 20)")
    parser.add_argument(
        "--temperature", type=real_number(above=0), default=0.07, metavar="T", help="of knn's votes (default: 0.07)"
    )
    parser.add_argument("--models", metavar="PATTERNS", help="models (default: those with features and no logits)")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets to predict (default: all)")
    parser.add_argument("-o", "--to", metavar="DIR", help="cache to write to (default: the same)")
    parser.add_argument("--store", choices=("zarr", "hdf5"), default="zarr", help="format of the stores")


def path_of(text: str | None) -> tuple[float, ...] | None:
    """Return the strengths that ``--l2-path`` says; None for CLIP's search.

    Raises
    ------
    UserError
        It is neither a list of numbers nor ``LOW:HIGH:N``.
    """
    from closerlook_common.errors import UserError

    if text is None:
        return None
    wrong = UserError(f"--l2-path {text!r} is neither numbers above 0, comma-separated, nor LOW:HIGH:N")
    try:
        if ":" not in text:
            values = tuple(float(part) for part in text.split(","))
        else:
            low, high, count = text.split(":")
            first, last, n = math.log10(float(low)), math.log10(float(high)), int(count)
            if not 2 <= n <= 1000:
                raise wrong
            values = tuple(10 ** (first + (last - first) * step / (n - 1)) for step in range(n))
    except (ValueError, OverflowError):
        raise wrong from None
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise wrong
    return values


def shots_of(text: str | None) -> tuple[int, ...]:
    """Return the numbers of images a class that ``--shots`` says."""
    from closerlook_common.errors import UserError

    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shots {text!r} is not whole numbers from 1 on, comma-separated")
    return tuple(int(part) for part in parts)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.calls.probe import probe_and_evaluate
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.probes.options import ProbeOptions
    from closerlook_common.console.messages import line, problem

    console = Console(stderr=True)
    options = ProbeOptions(
        reference=args.reference,
        methods=tuple(words(args.methods) or ()),
        shots=shots_of(args.shots),
        seeds=args.seeds,
        seed=args.seed,
        held_out=args.held_out,
        l2_path=path_of(args.l2_path),
        features=args.features,
        k=args.k,
        temperature=args.temperature,
    )
    with model_progress(console) as progress:
        done, table = probe_and_evaluate(
            cache_schema.open_cache(args.cache),
            args.to,
            options,
            models=words(args.models),
            datasets=words(args.datasets),
            backend=args.store,
            progress=progress,
        )
    print("\n".join(accuracy_lines(table)))
    for model, facts in done.facts.items():
        console.print(line(f"{model}: {_of_fit(facts)}"), soft_wrap=True)
        if not facts.get("converged", True):
            note = f"{model}: the fit ended after {facts['iterations']} iterations before it converged"
            console.print(problem("note", "yellow", note), soft_wrap=True)
    for what, reason in done.left_out.items():
        console.print(problem("left out", "yellow", f"{what}: {reason}"), soft_wrap=True)
    where = args.to or args.cache
    text = (
        f"{done.written} prediction stores of {len(done.models)} probes written to {where}, {done.unchanged} unchanged"
    )
    console.print(line(f"{text}; 'analyze metrics {where}' computes all their numbers"), soft_wrap=True)
    return 0


def accuracy_lines(table: object) -> list[str]:
    """Return a line for each model and dataset of a result table: top-1 accuracy, interval and images."""
    import polars as pl

    from closerlook_common.console.terminal import printable

    assert isinstance(table, pl.DataFrame)
    rows = table.filter((pl.col("metric") == "top1") & pl.col("value").is_not_null())
    names = [printable(f"{row['model']} on {row['dataset']}") for row in rows.to_dicts()]
    width = max(map(len, names), default=0)
    return [
        f"{name:{width}}  top-1 {100 * row['value']:5.1f} %  [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        f"  n = {row['n']:,}"
        for name, row in zip(names, rows.to_dicts(), strict=True)
    ]


def _of_fit(facts: dict[str, object]) -> str:
    text = f"fitted on {counted(int(str(facts['images'])), 'image')}"
    if "l2" in facts:
        text += f", L2 penalty {facts['l2']:.3g}"
    if "held_out_accuracy" in facts:
        share = 100 * float(str(facts["held_out_accuracy"]))
        text += f" (top-1 of {facts['held_out_images']:,} held-out images {share:.1f} %)"
    if few := facts.get("classes_with_fewer_shots"):
        text += f"; fewer images in {counted(int(str(few)), 'class', 'classes')}"
    return text
