"""Make a store of outputs of your own.

An .npz with one of `logits`, `log_probabilities`, `probabilities` (n, C), `labels` (n,), and optionally
`features` (n, D), `image_ids`, `valid` and `metadata.NAME` (n,) becomes a prediction store. A CSV or Parquet
file with the columns image_id, label, predicted, confidence becomes a summary store that holds just these.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.records import FAMILIES, GROUPS, ROLES

    parser.add_argument("file", type=Path, help="an .npz, .csv or .parquet file")
    parser.add_argument(
        "--cache", type=Path, required=True, help="the cache to write to; made if it is not there"
    )
    parser.add_argument(
        "--backend", "--store", choices=("zarr", "hdf5"), default="zarr", help="format (%(default)s)"
    )
    parser.add_argument("--features-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--overwrite", action="store_true", help="replace a store of the same identity")
    model = parser.add_argument_group("the model's card")
    model.add_argument("--model", required=True, metavar="ID", help="the model's name in every table")
    model.add_argument("--group", choices=tuple(GROUPS), default="unknown")
    model.add_argument("--family", choices=FAMILIES, default="unknown")
    model.add_argument("--source", default="unknown", help="training source")
    dataset = parser.add_argument_group("the dataset's card")
    dataset.add_argument("--dataset", required=True, metavar="ID", help="the dataset's name in every table")
    dataset.add_argument("--role", choices=ROLES, default="id", help="%(default)s when not given")
    dataset.add_argument("--class-space", default="", help="name of the label space, such as imagenet-1k")
    dataset.add_argument("--n-classes", type=int, help="number of labels; of an .npz, its logits tell")
    dataset.add_argument(
        "--shift-of", default="", metavar="ID", help="the in-distribution set it is a shift of"
    )
    dataset.add_argument("--distance", choices=("near", "far"), default="", help="of an OOD set")
    dataset.add_argument(
        "--class-mask", type=Path, metavar="FILE", help="indices of the classes that count, one a line"
    )


def run(args: argparse.Namespace) -> int:
    """Import the file."""
    from cache_schema.errors import UserError
    from cache_schema.import_outputs import import_npz, import_table
    from cache_schema.records import DatasetCard, ModelCard
    from cache_schema.store import Store

    model = ModelCard(
        id=args.model,
        library="import",
        name=args.model,
        group=args.group,
        family=args.family,
        source=args.source,
    )
    dataset = DatasetCard(
        id=args.dataset,
        role=args.role,
        class_space=args.class_space,
        n_classes=args.n_classes,
        shift_of=args.shift_of,
        distance=args.distance,
        class_mask=None if args.class_mask is None else _indices(args.class_mask),
    )
    suffix = args.file.suffix.lower()
    store: Store
    if suffix == ".npz":
        store = import_npz(
            args.file,
            args.cache,
            model=model,
            dataset=dataset,
            backend=args.backend,
            features_dtype=args.features_dtype,
            overwrite=args.overwrite,
        )
    elif suffix in (".csv", ".parquet"):
        store = import_table(
            args.file,
            args.cache,
            model=model,
            dataset=dataset,
            backend=args.backend,
            overwrite=args.overwrite,
        )
    else:
        raise UserError(f"{args.file}: only .npz, .csv and .parquet files can be imported")
    print(f"{store.path}: {store.kind} of {len(store):,} images")
    return 0


def _indices(path: Path) -> tuple[int, ...]:
    from cache_schema.errors import UserError

    try:
        return tuple(sorted({int(line) for line in path.read_text().split()}))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no class indices: {error}") from error
