"""Post-hoc detectors side by side: this project, pytorch-ood, and a faithful naive version of OpenOOD's.

    python benchmarks/detectors.py                          the sizes of the table in README.md (about 20 minutes)
    python benchmarks/detectors.py --queries 4000 --bank 4000 --classes 100 --width 128     a quick look

Every task runs in a process of its own on the same arrays; imports, loading and compilation are excluded. Slow peers
are timed on the first rows and scaled, which the column "timed on" says. MB is the growth of peak memory over the
loaded arrays. "same" is the largest difference to this project's scores on the rows that both scored, in units of
their spread, after the constants that the peers are known to differ by.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LINEAR = ("mds", "rmds", "vim", "residual", "she", "nci", "fdbd", "gradnorm", "energy")
"""Detectors of features, head and sums whose only products are linear maps of the features, scored in one pass."""
SHAPED = ("dice", "react", "ash_s", "scale", "klm", "pnml")
OURS = (*LINEAR, *SHAPED, "gen", "openmax", "relation", "nnguide", "knn")
KNN_OPTIONS: dict[str, dict[str, Any]] = {
    "knn": {},
    "knn, float16 bank": {"half": True},
    "knn, 128 components": {"pca": 128},
    "knn, 10 rows a class": {"per_class": 10},
}
PEERS: dict[str, int] = {
    # rows timed: naive OpenOOD
    "naive mds": 400, "naive rmds": 400, "naive klm": 24, "naive dice": 2000, "naive gradnorm": 100,
    "naive relation": 400, "naive knn (faiss)": 5000, "naive nnguide (faiss)": 5000,
    # rows timed: pytorch-ood
    "pytorch-ood mds": 800, "pytorch-ood rmds": 800, "pytorch-ood klm": 60_000, "pytorch-ood dice": 500,
    "pytorch-ood vim": 60_000, "pytorch-ood fdbd": 60_000, "pytorch-ood knn": 2000, "pytorch-ood nnguide": 2000,
    "pytorch-ood pnml": 60_000, "pytorch-ood she": 60_000,
}  # fmt: skip


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
    query = query[rng.permutation(len(query))] if args.shuffle else query
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


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    best, value = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        value = work()
        best = min(best, time.perf_counter() - start)
    return best, value


def ours(a: Arrays, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    from analyze.detectors import Reference, get, score_all

    rows = min(1200, len(a.query))
    warm = Reference.from_arrays(a.train[:2000], a.train_logits[:2000], a.labels[:2000])
    small = {"k": 5} if names[0] in ("knn", "nnguide") else {}
    for name in names:  # compile
        fit = get(name, **({**options, **small} if name in ("knn", "nnguide") else {})).fit(
            reference=warm, head=(a.weight, a.bias)
        )
        fit.score(features=a.query[:rows], logits=a.logits[:rows])
    base = peak()
    reading, reference = timed(lambda: Reference.from_arrays(a.train, a.train_logits, a.labels))
    fitting, fitted = timed(
        lambda: [get(n, **options).fit(reference=reference, head=(a.weight, a.bias)) for n in names]
    )
    scoring, scores = timed(lambda: score_all(fitted, features=a.query, logits=a.logits), 2)
    return {"reference": reading, "fit": fitting, "score": scoring, "mb": peak() - base, "scores": scores[-1]}


def floor(a: Arrays, what: str) -> dict[str, Any]:
    """One pass of the plain product in blocks of 1,008 rows: by BLAS and by this project's kernel."""
    from analyze.detectors.products import Right, multiply

    bank = what.endswith("bank")
    right = a.train / np.linalg.norm(a.train, axis=1, keepdims=True) if bank else a.weight
    n = min(len(a.query), 8064 if bank else len(a.query))
    columns = np.ascontiguousarray(right.T)
    prepared = Right.of(columns)
    multiply(a.query[:1008], prepared)
    base = peak()

    def blas() -> None:
        for i in range(0, n, 1008):
            a.query[i : i + 1008] @ columns

    def own() -> None:
        for i in range(0, n, 1008):
            multiply(a.query[i : i + 1008], prepared)

    seconds = timed(own if what.startswith("own") else blas, 3)[0]
    return {"fit": 0.0, "score": seconds * len(a.query) / n, "rows": n, "mb": peak() - base}


def naive(a: Arrays, name: str, n: int) -> dict[str, Any]:
    """Return OpenOOD's algorithm, batch of 200 by batch of 200, on the first n rows."""
    import torch
    from scipy.special import logsumexp, softmax

    f, z = a.query[:n], a.logits[:n]
    base = peak()
    fitting = 0.0
    classes = range(len(a.weight))
    if name in ("mds", "rmds"):

        def learn() -> Any:
            means = np.stack([a.train[a.labels == c].mean(axis=0) for c in classes])
            centred = a.train - means[a.labels]
            return means, np.linalg.inv(centred.T @ centred / len(centred)).astype("f4")

        fitting, (means, precision) = timed(learn)
        whole = a.train - a.train.mean(axis=0)
        other = np.linalg.inv(whole.T @ whole / len(whole)).astype("f4")

        def work() -> np.ndarray:
            found = []
            for i in range(0, n, 200):
                x = torch.from_numpy(f[i : i + 200])
                table = torch.zeros((len(x), len(means)))
                for c in classes:
                    gap = x - torch.from_numpy(means[c])
                    table[:, c] = -torch.matmul(torch.matmul(gap, torch.from_numpy(precision)), gap.t()).diag()
                best = table.max(dim=1).values.numpy()
                if name == "rmds":
                    gap = f[i : i + 200] - a.train.mean(axis=0)
                    best = best + np.einsum("ij,jk,ik->i", gap, other, gap, optimize=True)
                found.append(best)
            return np.concatenate(found)
    elif name == "klm":
        from sklearn.metrics import pairwise_distances_argmin_min

        p = softmax(a.train_logits, axis=1)
        predicted = p.argmax(axis=1)
        typical = np.stack([p[predicted == c].mean(axis=0) for c in np.unique(predicted)])

        def work() -> np.ndarray:
            def kl(x: np.ndarray, q: np.ndarray) -> float:
                return float(np.sum(np.where(x != 0, x * np.log(x / q), 0)))

            return -pairwise_distances_argmin_min(softmax(z, axis=1), typical, metric=kl)[1]
    elif name == "dice":
        contribution = a.train.mean(axis=0) * a.weight
        masked = torch.from_numpy(np.where(contribution > np.percentile(contribution, 90), a.weight, 0).astype("f4"))

        def work() -> np.ndarray:
            found = []
            for i in range(0, n, 200):
                vote = torch.from_numpy(f[i : i + 200])[:, None, :] * masked
                found.append(torch.logsumexp(vote.sum(2) + torch.from_numpy(a.bias), dim=1).numpy())
            return np.concatenate(found)
    elif name == "gradnorm":
        layer = torch.nn.Linear(a.weight.shape[1], len(a.weight))
        layer.weight.data, layer.bias.data = torch.from_numpy(a.weight.copy()), torch.from_numpy(a.bias.copy())

        def work() -> np.ndarray:
            found = []
            for row in f:
                layer.zero_grad()
                loss = -torch.log_softmax(layer(torch.from_numpy(row)[None]), dim=1).sum()
                loss.backward()
                assert layer.weight.grad is not None
                found.append(float(layer.weight.grad.abs().sum()))
            return np.array(found)
    elif name == "relation":
        unit = torch.from_numpy(a.train / np.linalg.norm(a.train, axis=1, keepdims=True))
        likely = torch.softmax(torch.from_numpy(a.train_logits), dim=1)

        def work() -> np.ndarray:
            found = []
            for i in range(0, n, 50):
                x = torch.nn.functional.normalize(torch.from_numpy(f[i : i + 50]), dim=1)
                p = torch.softmax(torch.from_numpy(z[i : i + 50]), dim=1)
                r = torch.clamp(x @ unit.T, min=0) * (p @ likely.T)
                found.append((r * (r > 0.03)).sum(1).numpy())
            return np.concatenate(found)
    else:
        import faiss

        unit = a.train / np.linalg.norm(a.train, axis=1, keepdims=True)
        x = f / np.linalg.norm(f, axis=1, keepdims=True)
        if name.startswith("knn"):
            index = faiss.IndexFlatL2(unit.shape[1])
            index.add(unit)

            def work() -> np.ndarray:
                return np.concatenate(
                    [-np.sqrt(np.maximum(index.search(x[i : i + 5000], 50)[0][:, -1], 0)) for i in range(0, n, 5000)]
                )
        else:
            guided = unit * logsumexp(a.train_logits, axis=1)[:, None]

            def work() -> np.ndarray:
                found = []
                for i in range(0, n, 200):
                    index = faiss.IndexFlatIP(unit.shape[1])
                    index.add(np.array(guided))
                    near = index.search(x[i : i + 200], 100)[0].mean(axis=1)
                    found.append(near * logsumexp(z[i : i + 200], axis=1))
                return np.concatenate(found)

    seconds, scores = timed(work)
    return {"fit": fitting, "score": seconds * len(a.query) / n, "rows": n, "mb": peak() - base, "scores": scores}


def pytorch_ood(a: Arrays, name: str, n: int) -> dict[str, Any]:
    import torch
    from pytorch_ood import detector as peers

    w, b = torch.from_numpy(a.weight), torch.from_numpy(a.bias)
    layer = torch.nn.Linear(w.shape[1], len(w)).requires_grad_(False)
    layer.weight.copy_(w)
    layer.bias.copy_(b)
    made = {
        "mds": lambda: peers.Mahalanobis(None), "rmds": lambda: peers.RMD(None), "klm": lambda: peers.KLMatching(None),
        "dice": lambda: peers.DICE(None, w, b, 0.9), "vim": lambda: peers.ViM(None, min(256, w.shape[1] // 2), w, b),
        "fdbd": lambda: peers.fDBD(None, layer), "knn": lambda: peers.KNN(None, k=50),
        "nnguide": lambda: peers.NNGuide(None, layer, k=100), "pnml": lambda: peers.PNML(None, layer),
        "she": lambda: peers.SHE(None, layer),
    }[name]()  # fmt: skip
    logits = name == "klm"
    train = torch.from_numpy(a.train_logits if logits else a.train)
    rows = torch.from_numpy((a.logits if logits else a.query)[:n])
    labels = torch.from_numpy(a.labels)
    base = peak()
    fitting, _ = timed(lambda: (made.fit_logits if logits else made.fit_features)(train, labels))

    def work() -> np.ndarray:
        predict = made.predict_logits if logits else made.predict_features
        return np.concatenate([-predict(rows[i : i + 250]).numpy() for i in range(0, n, 250)])

    seconds, scores = timed(work)
    return {"fit": fitting, "score": seconds * len(a.query) / n, "rows": n, "mb": peak() - base, "scores": scores}


def run_task(folder: Path, task: str) -> dict[str, Any]:
    a = Arrays(folder)
    n = min(PEERS.get(task, len(a.query)), len(a.query))
    if task.startswith(("blas", "own")):
        result = floor(a, task)
    elif task.startswith("naive "):
        result = naive(a, task[6:].split(" (")[0], n)
    elif task.startswith("pytorch-ood "):
        result = pytorch_ood(a, task[12:], n)
    elif task in KNN_OPTIONS:
        result = ours(a, ["knn"], KNN_OPTIONS[task])
    elif task == "linear":
        result = ours(a, list(LINEAR), {})
    elif task == "linear and shaped":
        result = ours(a, [*LINEAR, *SHAPED], {})
    elif task == "mds + rmds":
        result = ours(a, ["mds", "rmds"], {})
    else:
        result = ours(a, [task], {})
    scores = result.pop("scores", None)
    if scores is not None:
        np.save(folder / f"scores-{task}.npy", np.asarray(scores, dtype=np.float64))
    return result


def difference(folder: Path, task: str) -> str:
    """Return the largest difference to our scores, in spreads, after the best line (peers differ by constants)."""
    name = task.split(" (")[0].split(" ")[-1]
    theirs, mine = folder / f"scores-{task}.npy", folder / f"scores-{name}.npy"
    if not (theirs.exists() and mine.exists()):
        return ""
    y = np.load(theirs)
    x = np.load(mine)[: len(y)]
    slope, shift = np.polyfit(x, y, 1)
    return f"{np.abs(slope * x + shift - y).max() / (y.std() or 1):.1e}"


def auroc(folder: Path, task: str, queries: int) -> str:
    from analyze import metrics

    scores = np.load(folder / f"scores-{task}.npy")
    cut = queries - queries // 6
    return f"{metrics.auroc(scores[:cut], scores[cut:]):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=60_000)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", help="tasks, comma-separated")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(shuffle=False)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(args.folder, args.task)))
        return
    tasks = ["blas gemm", "own gemm", "blas gemm bank", "own gemm bank", "linear", "linear and shaped", "mds + rmds"]
    tasks += [t for t in OURS if t != "knn"] + list(KNN_OPTIONS) + list(PEERS)
    if args.only:
        tasks = [t for t in tasks if t in args.only.split(",")]
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, **threads, "PYTHONPATH": root}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args)
        print(
            f"{args.queries} queries, bank {args.bank}, C = {args.classes}, D = {args.width}, {args.threads} threads\n"
        )
        print("| task | fit s | score s | timed on | MB | same | AUROC |\n| --- | --- | --- | --- | --- | --- | --- |")
        for task in tasks:
            words = [sys.executable, __file__, "--task", task, "--folder", name]
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {task} | failed: {done.stderr.strip().splitlines()[-1]} |")
                continue
            r = json.loads(done.stdout.strip().splitlines()[-1])
            on = "all" if r.get("rows", args.queries) == args.queries else f"{r['rows']} rows"
            quality = (
                auroc(folder, task, args.queries) if on == "all" and (folder / f"scores-{task}.npy").exists() else ""
            )
            same = difference(folder, task) if task in PEERS else ""
            print(
                f"| {task} | {r['fit']:.2f} | {r['score']:.2f} | {on} | {r['mb']:.0f} | {same} | {quality} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
