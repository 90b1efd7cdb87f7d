"""Make a store of your own outputs.

The content of the file decides the kind of store:

    logits, log_probabilities or probabilities (n, C), labels (n,), optionally features (n, D), image_ids, valid and
    metadata.NAME (n,)                      the outputs on a dataset: an .npz; a CSV or Parquet file with a column a
                                            class (logit_0, logit_1 ...); or an .npy with --labels, --features
    the same with --role reference          a training set: the statistics that OOD detectors are fitted on
    weight (C, D), bias (C,)                the model's last layer (.npz), for the detectors that need it
    columns image_id, label, predicted, confidence
                                            a CSV or Parquet file of answers: accuracy and calibration, no more

Image ids pair the rows of models with each other and with annotations. Without them rows are only numbered.

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

from closerlook_common.console.argument_types import whole_number
from closerlook_common.console.messages import report, sentence
from closerlook_common.console.waiting import waiting

if TYPE_CHECKING:
    from cache_schema.format.records import DatasetCard, ModelCard
    from cache_schema.reading.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.format.records import FAMILIES, GROUPS, ROLES

    parser.add_argument("file", type=Path, help="an .npz, .npy, .csv or .parquet file")
    parser.add_argument("--cache", type=Path, required=True, help="the cache to write to; created if needed")
    parser.add_argument("--backend", "--store", choices=("zarr", "hdf5"), default="zarr", help="format (%(default)s)")
    parser.add_argument("--features-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--overwrite", action="store_true", help="replace a store of the same identity")
    arrays = parser.add_argument_group("arrays in files of their own (.npy)")
    arrays.add_argument(
        "--kind",
        choices=("logits", "log_probabilities", "probabilities"),
        help="what FILE.npy holds (default: logits), or the columns of a table that are called 0, 1, 2 ...",
    )
    arrays.add_argument("--labels", type=Path, metavar="FILE", help="class indices (n,)")
    arrays.add_argument("--features", type=Path, metavar="FILE", help="penultimate features (n, D)")
    arrays.add_argument("--image-ids", type=Path, metavar="FILE", help="names of the images (n,)")
    model = parser.add_argument_group("the model's card")
    model.add_argument("--model", required=True, metavar="ID", help="the model's name in every table")
    model.add_argument(
        "--group", choices=tuple(GROUPS), default="unknown", metavar="GROUP", help=f"one of {', '.join(GROUPS)}"
    )
    model.add_argument("--family", choices=FAMILIES, default="unknown", help="architecture")
    model.add_argument(
        "--lineage",
        default="",
        metavar="NAME",
        help="name shared by near-copies of the model, which statistics over models count as one family",
    )
    model.add_argument("--source", default="unknown", help="training source")
    dataset = parser.add_argument_group("the dataset's card")
    dataset.add_argument("--dataset", metavar="ID", help="the dataset's name in every table (a head has none)")
    dataset.add_argument("--role", choices=ROLES, help="default: the role in the cache, or id for a new dataset")
    dataset.add_argument(
        "--class-space", default="", help="name of the label space, such as imagenet-1k (default: C-classes)"
    )
    dataset.add_argument("--n-classes", type=whole_number(1), help="number of labels (default: the number of logits)")
    dataset.add_argument("--shift-of", default="", metavar="ID", help="the in-distribution set it is a shift of")
    dataset.add_argument("--distance", choices=("near", "far"), default="", help="of an OOD set")
    dataset.add_argument(
        "--per-class",
        type=whole_number(1),
        default=50,
        metavar="N",
        help="of a reference: images to keep per class (50)",
    )
    dataset.add_argument("--class-mask", type=Path, metavar="FILE", help="indices of the kept classes, one per line")
    dataset.add_argument(
        "--class-map",
        type=Path,
        metavar="FILE",
        help="super-classes, one line of member classes each (or JSON); labels and predictions are then their numbers",
    )
    dataset.add_argument(
        "--class-map-rule",
        choices=("max", "restrict", "mean"),
        default="max",
        help="how members make a super-class (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Import the file."""
    from cache_schema.format.dataset_facts import DatasetFacts, record_facts
    from cache_schema.format.records import DatasetCard, ModelCard
    from cache_schema.importing.class_files import read_class_map, read_class_mask
    from cache_schema.writing.dataset_roles import settle_roles
    from closerlook_common.errors import UserError
    from closerlook_common.input_files import require_regular_file

    if args.class_mask is not None and args.class_map is not None:
        raise UserError("give --class-mask or --class-map, not both: a map names the classes that count")

    named = {"file": args.file, "labels": args.labels, "features": args.features, "image ids": args.image_ids}
    for what, path in named.items():
        if path is not None:
            require_regular_file(path, what)
    model = ModelCard(
        id=args.model,
        library="import",
        name=args.model,
        group=args.group,
        family=args.family,
        lineage=args.lineage,
        source=args.source,
    )
    dataset = DatasetCard(
        id=args.dataset or args.model,
        role=args.role or "id",
        class_space=args.class_space,
        n_classes=args.n_classes,
        shift_of=args.shift_of,
        distance=args.distance,
        class_mask=None if args.class_mask is None else read_class_mask(args.class_mask),
        class_map=None if args.class_map is None else read_class_map(args.class_map),
        class_map_rule=args.class_map_rule,
    )
    given = {name for name in ("role", "shift_of", "distance") if getattr(args, name)}
    if dataset.role == "id" and args.shift_of and not args.role:
        dataset = replace(dataset, role="shift")
        given.add("role")
    settled = settle_roles(args.cache, [(dataset, given)], write=False)[0]
    with waiting(f"importing {args.file}"):
        made = _import(args, model, settled.card)
    facts = DatasetFacts.of(settled.card)
    if settled.change and facts is not None and made.kind in ("predictions", "summary"):
        record_facts(args.cache, settled.card.id, facts)
    for text in filter(None, (settled.change, settled.kept)):
        print(sentence(text))
    rows = "classes" if made.kind in ("head", "reference") else "images"
    print(sentence(f"{made.path}: {made.kind} of {len(made):,} {rows}"))
    return 0


def _import(args: argparse.Namespace, model: ModelCard, dataset: DatasetCard) -> Store:
    from cache_schema.importing.answers import import_table
    from cache_schema.importing.fits import import_head, import_reference
    from cache_schema.importing.outputs import KINDS, import_arrays
    from cache_schema.importing.own_arrays import OwnArrays
    from closerlook_common.csv_files import is_packed
    from closerlook_common.errors import UserError

    where: dict[str, Any] = {"model": model, "backend": args.backend, "overwrite": args.overwrite}
    suffix = args.file.suffix.lower()
    if suffix in (".pt", ".pth", ".pkl"):
        raise UserError(
            f"{args.file} is of Python objects, which are never loaded here; write it with"
            " numpy.savez('mine.npz', logits=logits.cpu().numpy(), labels=labels.cpu().numpy())"
        )
    if is_packed(args.file):
        raise UserError(f"{args.file} is compressed; unpack it first")
    if suffix not in (".npz", ".npy", ".csv", ".parquet"):
        raise UserError(f"{args.file}: only .npz, .npy, .csv and .parquet files can be imported")
    beside = {name: getattr(args, name) for name in ("labels", "features", "image_ids") if getattr(args, name)}
    missing = UserError(f"{args.file}: --dataset is missing: the name of the dataset of these outputs")
    if suffix in (".csv", ".parquet") and not _is_wide(args.file):
        if args.dataset is None:
            raise missing
        return import_table(args.file, args.cache, dataset=dataset, report=report, **where)
    with OwnArrays(args.file, kind=args.kind, beside=beside, report=report) as file:
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
            return import_reference(file, args.cache, dataset=dataset, per_class=args.per_class, report=report, **where)
        return import_arrays(
            file, args.cache, dataset=dataset, features_dtype=args.features_dtype, report=report, **where
        )


def _is_wide(path: Path) -> bool:
    """Return whether the header of a table has one column per class."""
    from cache_schema.importing.column_names import wide_columns
    from cache_schema.importing.tables import table_schema

    return bool(wide_columns(list(table_schema(path)), str(path)))
