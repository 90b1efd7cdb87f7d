"""Post-hoc detectors side by side: this project, pytorch-ood, and a faithful naive version of OpenOOD's.

    python benchmarks/detectors.py [linear|bank|peers|zoo|all]      the sizes of the table in README.md
    python benchmarks/detectors.py --queries 4000 --bank 4000 --classes 100 --width 128     a quick look

Every task runs in a process of its own on the same arrays; imports, loading and compilation are excluded. What is slow
is timed on the first rows and scaled, which the column "timed on" says. MB is the growth of peak memory over the loaded
arrays. "same" is the largest difference to this project's scores on the rows that both scored, in units of their
spread, after the constants that the peers are known to differ by. A part adds to the figures that an earlier part left
in ``--folder``; the marks are computed from what is there.

``OPENBLAS_CORETYPE`` and ``OPENBLAS_L2_SIZE`` are taken out of the tasks' environment: they would choose the BLAS's
kernel, and a slower one would lower the floor and the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from declared import DECLARED, LINEAR, NAIVE, PYTORCH_OOD, SHAPED, ZOO
from detectors_peers import CLOCK, CLOCKS, ROWS, naive, peak, pytorch_ood, timed
from detectors_zoo import names as zoo_names
from detectors_zoo import zoo
from record import Recorder

KNN_OPTIONS: dict[str, dict[str, Any]] = {
    "knn": {},
    "knn, float16 bank": {"half": True},
    "knn, 128 components": {"pca": 128},
    "knn, 10 rows a class": {"per_class": 10},
}
PARTS: dict[str, list[str]] = {
    "linear": [
        "blas gemm", "own gemm", "linear", "linear and shaped", "mds + rmds", *LINEAR, *SHAPED, "gen", "openmax",
    ],
    "bank": ["blas gemm bank", "own gemm bank", *KNN_OPTIONS, "nnguide", "relation", "naive knn (faiss)",
             "naive nnguide (faiss)", "naive relation", "pytorch-ood knn", "pytorch-ood nnguide"],
    "zoo": [*ZOO],
    "peers": [name for name in ROWS if not any(bank in name for bank in ("knn", "nnguide", "relation"))],
}  # fmt: skip
OWN_ROWS = {"nnguide": 10_080, "relation": 5_040, "blas gemm bank": 8_064, "own gemm bank": 8_064,
            **dict.fromkeys(ZOO, 10_080)}  # fmt: skip
"""Rows that our slower tasks are timed on; all where they are not named."""
BLAS_CHOICES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def make(folder: Path, args: argparse.Namespace) -> None:
    """Write features and logits of a training set (the bank) and of queries, the last sixth of them OOD."""
    rng = np.random.default_rng(0)
    c, d = args.classes, args.width
    weight = (rng.normal(size=(c, d)) / np.sqrt(d)).astype("f4")
    bias = (0.1 * rng.normal(size=c)).astype("f4")
    spectrum = (np.arange(1, d + 1) ** -0.5 * 3).astype("f4")
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0].astype("f4")

    def draw(n: int, pull: float) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, c, n)
        noise = (rng.standard_normal((n, d), dtype="f4") * spectrum) @ turn
        return (pull * np.sqrt(d) * weight[labels] + noise).astype("f2").astype("f4"), labels

    train, labels = draw(args.bank, 0.35)
    inside = draw(args.queries - args.queries // 6, 0.35)[0]
    query = np.concatenate([inside, draw(args.queries // 6, 0.2)[0]])
    for name, values in {"weight": weight, "bias": bias, "train": train, "labels": labels, "query": query}.items():
        np.save(folder / f"{name}.npy", values)
    for name, values in (("train_logits", train), ("logits", query)):
        np.save(folder / f"{name}.npy", values @ weight.T + bias)


class Arrays:
    """The arrays of ``make``, loaded."""

    def __init__(self, folder: Path) -> None:
        for name in ("weight", "bias", "train", "labels", "train_logits", "query", "logits"):
            setattr(self, name, np.load(folder / f"{name}.npy", allow_pickle=False))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def ours(a: Arrays, names: list[str], options: dict[str, Any], n: int) -> dict[str, Any]:
    """Fit and score by this project: the first n rows, all detectors of a task in one pass."""
    from analyze.detectors import Reference, get, score_all

    warm = Reference.from_arrays(a.train[:2000], a.train_logits[:2000], a.labels[:2000])
    for name in names:  # compile
        small = {**options, "k": 5} if name in ("knn", "nnguide") else options
        get(name, **small).fit(reference=warm, head=(a.weight, a.bias)).score(
            features=a.query[:1200], logits=a.logits[:1200]
        )
    base = peak()
    reading, reference = timed(lambda: Reference.from_arrays(a.train, a.train_logits, a.labels))
    fitting, fitted = timed(
        lambda: [get(name, **options).fit(reference=reference, head=(a.weight, a.bias)) for name in names]
    )
    long = any(name in ("knn", "nnguide", "relation") for name in names)
    scoring, scores = timed(lambda: score_all(fitted, features=a.query[:n], logits=a.logits[:n]), 1 if long else 3)
    return {"reference": reading, "fit": fitting, "score": scoring, "mb": peak() - base, "scores": scores[-1]}


def floor(a: Arrays, task: str, n: int) -> dict[str, Any]:
    """One pass of the plain product by BLAS or by this project's kernel, in the best of three sizes of blocks."""
    from analyze.detectors.products import Right, multiply

    bank = task.endswith("bank")
    right = a.train / np.linalg.norm(a.train, axis=1, keepdims=True) if bank else a.weight
    columns = np.ascontiguousarray(right.T)
    prepared = Right.of(columns)
    multiply(a.query[:1008], prepared)
    base = peak()
    own = task.startswith("own")

    def work(step: int) -> None:
        for i in range(0, n, step):
            block = a.query[i : min(i + step, n)]
            _ = multiply(block, prepared) if own else block @ columns

    seconds = min(timed(lambda step=step: work(step), 3)[0] for step in (1008, 4032, 8064))
    return {"fit": 0.0, "score": seconds, "mb": peak() - base}


def run_task(folder: Path, task: str) -> dict[str, Any]:
    """Run one task in this process; its scores go to the folder."""
    a = Arrays(folder)
    n = min({**OWN_ROWS, **ROWS}.get(task, len(a.query)), len(a.query))
    if task.startswith(("blas", "own")):
        result = floor(a, task, n)
    elif task.startswith("naive "):
        result = naive(a, task[6:].split(" (")[0], n)
    elif task.startswith("pytorch-ood "):
        result = pytorch_ood(a, task[12:], n)
    elif task in ZOO:
        chosen = {"zoo, naive's": [name.split(" (")[0] for name in NAIVE], "zoo, pytorch-ood's": list(PYTORCH_OOD)}
        result = zoo(a, chosen.get(task, zoo_names()), n)
    elif task in KNN_OPTIONS:
        result = ours(a, ["knn"], KNN_OPTIONS[task], n)
    else:
        together = {"linear": [*LINEAR], "linear and shaped": [*LINEAR, *SHAPED], "mds + rmds": ["mds", "rmds"]}
        result = ours(a, together.get(task, [task]), {}, n)
    scores = result.pop("scores", None)
    if scores is not None:
        np.save(folder / f"scores-{task}.npy", np.asarray(scores, dtype=np.float64))
    return {**result, "rows": n, "score": result["score"] * len(a.query) / n}


def difference(folder: Path, task: str) -> str:
    """Return the largest difference to our scores, in spreads, after the best line (peers differ by constants)."""
    name = task.split(" (")[0].split(" ")[-1]
    theirs, mine = folder / f"scores-{task}.npy", folder / f"scores-{name}.npy"
    if not (theirs.exists() and mine.exists()):
        return ""
    x, y = np.load(mine), np.load(theirs)
    n = min(len(x), len(y))
    x, y = x[:n], y[:n]
    slope, shift = np.polyfit(x, y, 1)
    return f"{np.abs(slope * x + shift - y).max() / (y.std() or 1):.1e}"


def auroc(folder: Path, task: str, queries: int) -> str:
    """Return the AUROC of a task that scored all queries."""
    from analyze import metrics

    scores = np.load(folder / f"scores-{task}.npy")
    cut = queries - queries // 6
    return f"{metrics.auroc(scores[:cut], scores[cut:]):.4f}" if len(scores) == queries else ""


class Mark(NamedTuple):
    """A ratio that was asked for.

    Attributes
    ----------
    name
        Its row in ``declared.py``.
    text
        What is printed.
    figure
        The number.
    tasks
        The tasks that it rests on.
    detail
        For the row.
    """

    name: str
    text: str
    figure: float
    tasks: frozenset[str]
    detail: str = ""


def marks(done: Mapping[str, Mapping[str, float]]) -> list[Mark]:
    """Return the ratios that the marks ask for, of what has been measured; a product is BLAS's or ours if faster."""
    parts: list[Mark] = []
    floors = {
        name: min(done[f"{who} {name}"]["score"] for who in ("blas", "own"))
        for name in ("gemm", "gemm bank")
        if all(f"{who} {name}" in done for who in ("blas", "own"))
    }
    seconds = {**{name: r["score"] for name, r in done.items()}, **floors}

    def ratio(row: str, text: str, over: list[str], under: str) -> None:
        if all(name in seconds for name in (*over, under)):
            found = sum(seconds[name] for name in over) / seconds[under]
            asked = DECLARED["detectors"][row][1] or "none"
            below = {under} if under in done else {f"{who} {under}" for who in ("blas", "own")}
            parts.append(Mark(row, f"{text}: {found:.3g} times (mark {asked})", found, frozenset({*over, *below})))

    for peer in ("naive", "pytorch-ood"):
        both = [f"{peer} mds", f"{peer} rmds"]
        ratio(f"mds and rmds/{peer}", f"MDS and RMDS, {peer} over ours together", both, "mds + rmds")
        ratio(f"klm/{peer}", f"KL-matching, {peer} over ours", [f"{peer} klm"], "klm")
        ratio(f"dice/{peer}", f"DICE, {peer} over ours", [f"{peer} dice"], "dice")
    together = f"the {len(LINEAR)} linear detectors together, over one product"
    ratio("products/linear", together, ["linear"], "gemm")
    ratio("products/linear and shaped", "these and the shaped ones in one pass", ["linear and shaped"], "gemm")
    for name in SHAPED:
        ratio(f"products/{name}", f"{name} alone", [name], "gemm")
    for task in [name for name in ZOO if name in done]:
        asked = DECLARED["detectors"][f"{task}/products"][1] or "none"
        text = f"{task}: {done[task]['products']:.3g} products with the bank (mark {asked})"
        parts.append(Mark(f"{task}/products", text, done[task]["products"], frozenset({task})))
    for peer, peers in (("naive", NAIVE), ("pytorch-ood", PYTORCH_OOD)):
        both = [f"{peer} {name}" for name in peers]
        ratio(f"zoo/{peer}", f"{len(peers)} detectors, {peer} over ours in one pass", both, f"zoo, {peer}'s")
    ratio("bank products/knn", "kNN-50 over the product with the bank", ["knn"], "gemm bank")
    ratio("bank products/faiss", "the same by faiss", ["naive knn (faiss)"], "gemm bank")
    ours_mb = {name: r["mb"] for name, r in done.items() if name not in {*ROWS, *ZOO} and "gemm" not in name}
    if ours_mb:
        most = max(ours_mb, key=lambda name: ours_mb[name])
        text = f"most memory of ours over the inputs: {ours_mb[most]:.0f} MB, {most} (mark 1,000)"
        parts.append(Mark("most memory", text, ours_mb[most], frozenset(ours_mb), most))
    return parts


def record_all(
    record: Recorder, done: Mapping[str, Mapping[str, float]], ran: set[str], aurocs: dict[str, str]
) -> None:
    """Record what this run measured, and the marks that rest on it; what an earlier part left is recorded already."""
    for task in sorted(ran):
        if "gemm" not in task:
            record.add(f"seconds/{task}", done[task]["score"])
            record.add(f"memory/{task}", done[task]["mb"])
        if aurocs.get(task):
            record.add(f"auroc/{task}", float(aurocs[task]))
    for name in ("gemm", "gemm bank"):
        if {f"blas {name}", f"own {name}"} <= ran:
            record.add(f"seconds/{name}", min(done[f"{who} {name}"]["score"] for who in ("blas", "own")))
    own = {task for names in PARTS.values() for task in names if task not in {*ROWS, *ZOO} and "gemm" not in task}
    for mark in marks(done):
        if mark.tasks & ran and (mark.name != "most memory" or own <= mark.tasks):
            record.add(mark.name, mark.figure, detail=mark.detail)


def environment_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the environment of the tasks: the number of threads, nothing that chooses the BLAS's kernel."""
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    threads[CLOCK] = args.clock
    inherited = {key: value for key, value in os.environ.items() if key not in BLAS_CHOICES}
    return {**inherited, **threads, "PYTHONPATH": str(Path(__file__).parents[1])}


def blas(environment: Mapping[str, str]) -> str:
    """Return the BLAS kernel that numpy runs in the tasks."""
    code = (
        "import numpy, threadpoolctl as t; print(', '.join(f\"{i['internal_api']} {i['version']} {i['architecture']},"
        " {i['num_threads']} threads\" for i in t.threadpool_info() if i['user_api'] == 'blas'))"
    )
    given = subprocess.run(
        [sys.executable, "-c", code], env=dict(environment), capture_output=True, text=True, check=True
    )
    return given.stdout.strip()


def main() -> None:
    """Run the tasks of a part, print their table and the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=(*PARTS, "all"))
    parser.add_argument("--queries", type=int, default=60_000)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock", default="wall", choices=CLOCKS, help="processor: time of all threads, for a machine that others use"
    )
    parser.add_argument("--only", help="tasks, separated by semicolons")
    parser.add_argument("--folder", type=Path, help="keep arrays, scores and figures here for the next part")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(args.folder, args.task)))
        return
    sizes: dict[str, tuple[int, ...]] = dict.fromkeys(("queries", "bank", "classes", "width", "threads"), ())
    environment = environment_of(args)
    record = Recorder("detectors", parser, args, sizes=sizes, other=blas(environment), environment=environment)
    with tempfile.TemporaryDirectory() as name:
        run_part(args, args.folder or Path(name), record)
    record.write()


def run_part(args: argparse.Namespace, folder: Path, record: Recorder) -> None:
    """Run the tasks that were asked for, each in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "logits.npy").exists():
        make(folder, args)
    kept = folder / "figures.json"
    done: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    environment = environment_of(args)
    tasks = [task for part, names in PARTS.items() if args.part in (part, "all") for task in names]
    if args.only:
        tasks = [task for task in tasks if task in args.only.split(";")]
    print(
        f"{record.machine}\n{args.queries} queries, bank {args.bank}, C = {args.classes}, D = {args.width}\n\n"
        "| task | reference s | fit s | score s | timed on | MB | same | AUROC |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    ran: set[str] = set()
    aurocs: dict[str, str] = {}
    for task in tasks:
        words = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
        given = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if given.returncode:
            print(f"| {task} | failed: {given.stderr.strip().splitlines()[-1]} |")
            continue
        r = done[task] = json.loads(given.stdout.strip().splitlines()[-1])
        kept.write_text(json.dumps(done))
        ran.add(task)
        scored = (folder / f"scores-{task}.npy").exists()
        aurocs[task] = auroc(folder, task, args.queries) if scored else ""
        cells = [
            task,
            f"{r['reference']:.2f}" if "reference" in r else "",
            f"{r['fit']:.2f}",
            f"{r['score']:.3g}",
            "all" if r["rows"] == args.queries else f"{r['rows']} rows",
            f"{r['mb']:.0f}",
            difference(folder, task) if task in ROWS else "",
            aurocs[task],
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    print("", *(mark.text for mark in marks(done)), sep="\n")
    record_all(record, done, ran, aurocs)


if __name__ == "__main__":
    main()
