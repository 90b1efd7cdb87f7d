"""Make a store of outputs of your own.

What the file holds decides what becomes of it:

    logits, log_probabilities or probabilities (n, C), labels (n,), perhaps features (n, D), image_ids, valid and
    metadata.NAME (n,)                      the outputs on a dataset: an .npz; a CSV or Parquet file with a column a
                                            class (logit_0, logit_1 ...); or an .npy with --labels, --features
    the same with --role reference          a training set: the statistics that OOD detectors are fitted on
    weight (C, D), bias (C,)                the model's last layer (.npz), for the detectors that need it
    columns image_id, label, predicted, confidence
                                            a CSV or Parquet file of answers: accuracy and calibration, no more

    cache_schema import val.npz --model my-model --dataset val --cache cache
    cache_schema import train.npz --model my-model --dataset train --role reference --cache cache
    cache_schema import head.npz --model my-model --cache cache
    cache_schema import sun.npy --features sun-feats.npy --model my-model --dataset sun --role ood --cache cache
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_schema.records import DatasetCard, ModelCard
    from cache_schema.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.records import FAMILIES, GROUPS, ROLES

    parser.add_argument("file", type=Path, help="an .npz, .npy, .csv or .parquet file")
    parser.add_argument(
        "--cache", type=Path, required=True, help="the cache to write to; made if it is not there"
    )
    parser.add_argument(
        "--backend", "--store", choices=("zarr", "hdf5"), default="zarr", help="format (%(default)s)"
    )
    parser.add_argument("--features-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--overwrite", action="store_true", help="replace a store of the same identity")
    arrays = parser.add_argument_group("arrays in files of their own (.npy)")
    arrays.add_argument(
        "--kind", choices=("logits", "log_probabilities", "probabilities"), default="logits", help="what FILE.npy holds"
    )
    arrays.add_argument("--labels", type=Path, metavar="FILE", help="class indices (n,)")
    arrays.add_argument("--features", type=Path, metavar="FILE", help="penultimate features (n, D)")
    arrays.add_argument("--image-ids", type=Path, metavar="FILE", help="names of the images (n,)")
    model = parser.add_argument_group("the model's card")
    model.add_argument("--model", required=True, metavar="ID", help="the model's name in every table")
    model.add_argument("--group", choices=tuple(GROUPS), default="unknown")
    model.add_argument("--family", choices=FAMILIES, default="unknown")
    model.add_argument("--source", default="unknown", help="training source")
    dataset = parser.add_argument_group("the dataset's card")
    dataset.add_argument("--dataset", metavar="ID", help="the dataset's name in every table (a head has none)")
    dataset.add_argument("--role", choices=ROLES, default="id", help="%(default)s when not given")
    dataset.add_argument(
        "--class-space", default="", help="name of the label space, such as imagenet-1k (default: C-classes)"
    )
    dataset.add_argument("--n-classes", type=int, help="number of labels; of an .npz, its logits tell")
    dataset.add_argument(
        "--shift-of", default="", metavar="ID", help="the in-distribution set it is a shift of"
    )
    dataset.add_argument("--distance", choices=("near", "far"), default="", help="of an OOD set")
    dataset.add_argument(
        "--per-class", type=int, default=50, metavar="N", help="of a reference: images a class that are kept (50)"
    )
    dataset.add_argument(
        "--class-mask", type=Path, metavar="FILE", help="indices of the classes that count, one a line"
    )


def run(args: argparse.Namespace) -> int:
    """Import the file."""
    from cache_schema.records import DatasetCard, ModelCard

    model = ModelCard(
        id=args.model,
        library="import",
        name=args.model,
        group=args.group,
        family=args.family,
        source=args.source,
    )
    dataset = DatasetCard(
        id=args.dataset or args.model,
        role=args.role,
        class_space=args.class_space,
        n_classes=args.n_classes,
        shift_of=args.shift_of,
        distance=args.distance,
        class_mask=None if args.class_mask is None else _indices(args.class_mask),
    )
    made = _import(args, model, dataset)
    print(f"{made.path}: {made.kind} of {len(made):,} {'classes' if made.kind in ('head', 'reference') else 'images'}")
    return 0


def _import(args: argparse.Namespace, model: ModelCard, dataset: DatasetCard) -> Store:
    from cache_schema.errors import UserError
    from cache_schema.importing.fits import import_head, import_reference
    from cache_schema.importing.outputs import KINDS, import_arrays, import_table
    from cache_schema.importing.own_arrays import OwnArrays

    where: dict[str, Any] = {"model": model, "backend": args.backend, "overwrite": args.overwrite}
    suffix = args.file.suffix.lower()
    if suffix in (".pt", ".pth", ".pkl"):
        raise UserError(
            f"{args.file} is of Python objects, which are never loaded here; write it with"
            " numpy.savez('mine.npz', logits=logits.cpu().numpy(), labels=labels.cpu().numpy())"
        )
    if suffix not in (".npz", ".npy", ".csv", ".parquet"):
        raise UserError(f"{args.file}: only .npz, .npy, .csv and .parquet files can be imported")
    beside = {name: getattr(args, name) for name in ("labels", "features", "image_ids") if getattr(args, name)}
    missing = UserError(f"{args.file}: --dataset is missing: the name of the images that the outputs are of")
    if suffix in (".csv", ".parquet") and not _is_wide(args.file):
        if args.dataset is None:
            raise missing
        return import_table(args.file, args.cache, dataset=dataset, **where)
    with OwnArrays(args.file, kind=args.kind, beside=beside) as file:
        if "weight" in file.names:
            class_space = args.class_space or f"{file.shape_and_dtype('weight')[0][0]}-classes"
            return import_head(file, args.cache, class_space=class_space, **where)
        if args.dataset is None:
            raise missing
        if not args.class_space:
            kind = next((kind for kind in KINDS if kind in file.names), "")
            shape = file.shape_and_dtype(kind)[0] if kind else ()
            dataset = replace(dataset, class_space=f"{shape[1]}-classes" if len(shape) == 2 else "")
        if args.role == "reference":
            return import_reference(file, args.cache, dataset=dataset, per_class=args.per_class, **where)
        return import_arrays(file, args.cache, dataset=dataset, features_dtype=args.features_dtype, **where)


def _is_wide(path: Path) -> bool:
    """Tell whether a table has a column a class, from its heading."""
    import polars as pl

    from cache_schema.errors import UserError
    from cache_schema.importing.own_arrays import wide_columns

    try:
        scan = pl.scan_csv(path) if path.suffix.lower() == ".csv" else pl.scan_parquet(path)
        return bool(wide_columns(scan.collect_schema().names()))
    except (pl.exceptions.PolarsError, OSError) as error:
        if not path.exists():
            raise UserError(f"no file {path}") from None
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _indices(path: Path) -> tuple[int, ...]:
    from cache_schema.errors import UserError

    try:
        return tuple(sorted({int(line) for line in path.read_text().split()}))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no class indices: {error}") from error
