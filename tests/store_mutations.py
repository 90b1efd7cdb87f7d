"""Change stores as an attacker would, seals recomputed, and see what reading them does.

Run as a script, it makes small real stores of every kind, changes one thing in a copy of one of them, reads that copy
in another process whose memory and time are limited, and counts what came of it:

    python tests/store_mutations.py --seed 0 --count 1000

The last line holds the counts. The exit code is 1 where anything but a refusal (CacheError) or a reading came out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from store_changes import CHANGES, choose

import cache_schema
from cache_schema.backends import zarr_columns
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError

BACKENDS = ("zarr", "hdf5")
OUTCOMES = ("refused", "read", "tracebacks", "crashes", "hangs", "over memory", "leaks")
SECRET = b"bytes of another file: 0123456789abcdef"
MORE_MEMORY = 1 << 30
SECONDS = 20
BATCH = 250


def write_stores(cache: Path, backend: str) -> list[Path]:
    """Write one small store of every kind."""
    rng = np.random.default_rng(3)
    n, c, d = 40, 5, 4
    model = ModelCard(id=f"m-{backend}", library="timm", name="m", logit_scale=2.0)
    dataset = DatasetCard(id="val", class_space="five", n_classes=c, digest="d" * 64, class_mask=(0, 1, 2, 3, 4))
    common: dict[str, Any] = {"model": model, "backend": backend}
    logits, features = rng.normal(0, 3, (n, c)).astype("f4"), rng.normal(0, 1, (n, d)).astype("f4")
    labels = rng.integers(0, c, n).astype(np.int32)
    stores = [
        cache_schema.write_store(
            cache, **common, dataset=dataset, logits=logits, features=features, labels=labels,
            image_ids=[f"{i}.jpg" for i in range(n)], metadata={"pose": ["a", "b"] * (n // 2), "size": np.arange(n)},
            valid=np.arange(n) != 3,
        ),
        cache_schema.write_summary(
            cache, **common, dataset=dataset, columns={"confidence": rng.random(n, np.float32), "top": features}
        ),
        cache_schema.write_head(
            cache, **common, class_space="five", class_names=list("abcde"), weight=rng.normal(0, 1, (c, d)),
            logit_scale=2.0, normalize_features=True,
        ),
        cache_schema.write_texts(
            cache, **common, dataset=dataset, embeddings=np.eye(d), text=list("pqrs"), image_index=np.arange(d),
        ),
    ]  # fmt: skip
    sums = ReferenceAccumulator(c, d, per_class=2)
    sums.update(features, logits, labels)
    stores.append(cache_schema.write_reference(cache, **common, dataset=dataset, arrays=sums.arrays()))
    return [store.path for store in stores]


def read_all(path: Path) -> list[bytes]:
    """Read everything of a store, as the analysis does; returns the bytes."""
    store = cache_schema.open_store(path)
    found = [store.read(name).tobytes() for name in store.array_names]
    model, record = store.model.to_record(), store.record
    assert isinstance(record, dict)
    assert str(model["id"])
    assert len(store) > 0
    if store.kind != "head":
        assert store.dataset.to_record()["id"]
    if isinstance(store, cache_schema.PredictionStore):
        assert len(store.labels) == len(store.valid) == len(store.image_ids) == len(store)
        found += [str(store.metadata).encode(), str(store.logits_kind).encode()]
        found += [block.logits.tobytes() for block in store.blocks(16) if block.logits is not None and store.has_logits]
    elif store.kind == "summary":
        found += [np.asarray(store.column(name)).tobytes() for name in store.columns()]
    elif store.kind == "head":
        assert len(store.class_names) == store.n_classes
        assert store.logit_scale is None or store.logit_scale * 1.0 == store.logit_scale
        found += [store.weight.tobytes(), str((store.templates, store.residual, store.affine)).encode()]
    elif store.kind == "texts":
        assert len(store.text) == len(store.image_index) == len(store.embeddings)
    else:
        found.append(str(store.arrays()).encode())
    return found


def mutated(originals: Sequence[Path], folder: Path, backend: str, seed: int, number: int) -> tuple[Path, str]:
    """Return a copy of one of the stores with one thing changed, and what was changed."""
    rng = np.random.default_rng([seed, number, BACKENDS.index(backend)])
    original = choose(rng, originals)
    change = choose(rng, CHANGES[backend])
    path = (
        folder / f"{number}" / original.relative_to(original.parents[1] if _is_own(original) else original.parents[2])
    )
    path.parent.mkdir(parents=True)
    (path.parent / "secret").write_bytes(SECRET * 100)
    (path.parent / "folder").mkdir()
    os.mkfifo(path.parent / "pipe")
    if original.is_dir():
        shutil.copytree(original, path)
    else:
        shutil.copy(original, path)
    change(path, rng)
    return path, f"{original.name} {change.__name__}"


def _is_own(path: Path) -> bool:
    return path.parent.name not in ("heads", "references", "summaries", "texts")


def outcome(path: Path) -> tuple[str, str]:
    """Read a store and check it; returns which of ``OUTCOMES`` it was, and the line or the traceback."""
    try:
        try:
            found = read_all(path)
        except CacheError as error:
            result = "refused", str(error)
            if "\n" in result[1]:
                return "tracebacks", f"not one line: {error}"
        else:
            leak = any(SECRET[:16] in part for part in found)
            result = ("leaks", "bytes of another file were read") if leak else ("read", "")
        list(problems(path))
        return result
    except MemoryError:
        return "over memory", traceback.format_exc()
    except Exception:  # noqa: BLE001  what is counted here
        return "tracebacks", traceback.format_exc()


def work(originals: Sequence[Path], backend: str, seed: int, first: int, last: int, folder: Path, log: Path) -> None:
    """Do some mutations in this process, whose memory is limited; a line of the log each."""
    import resource

    warm = [read_all(path) for path in originals]
    assert warm
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_MEMORY, size + MORE_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("a") as file:
        for number in range(first, last):
            file.write(f"begin {number}\n")
            file.flush()
            signal.alarm(SECONDS)
            # Every other one in the threads that decode large reads.
            zarr_columns.SERIAL_BYTES = (-1, 4 << 20)[number % 2]
            path, what = mutated(originals, folder, backend, seed, number)
            result, why = outcome(path)
            signal.alarm(0)
            file.write(f"end {json.dumps([number, result, what, why])}\n")
            file.flush()
            shutil.rmtree(folder / f"{number}", ignore_errors=True)


def run(seed: int, count: int, backend: str, folder: Path, report: Callable[[str], None] = print) -> Counter[str]:
    """Do ``count`` mutations of one backend in other processes; returns the counts of outcomes."""
    counts: Counter[str] = Counter()
    log = folder / f"{backend}.log"
    first = 0
    while first < count:
        last = min(count, first + BATCH)
        words = [seed, first, last, backend, folder, log]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--work", *map(str, words)],
            check=False,
            timeout=BATCH * SECONDS,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        for line in lines:
            if line.startswith("end "):
                number, result, what, why = json.loads(line[4:])
                counts[result] += 1
                if result not in ("refused", "read"):
                    report(f"{backend} mutation {number} ({what}): {result}: {why}")
        first = last
        if done.returncode != 0:
            if not lines or not lines[-1].startswith("begin "):
                raise RuntimeError(done.stderr.decode())
            number = int(lines[-1].split()[1])
            if done.returncode < 0:
                result = "hangs" if done.returncode == -signal.SIGALRM else "crashes"
                report(f"{backend} mutation {number}: ended by signal {-done.returncode}")
            else:
                result = "tracebacks"
                report(f"{backend} mutation {number}: {done.stderr.decode()}")
            counts[result] += 1
            first = number + 1
    return counts


def main(words: Sequence[str]) -> int:
    """Run from the command line."""
    if words[:1] == ["--work"]:
        seed, first, last, backend, folder, log = words[1:]
        originals = sorted(path for path in Path(folder, backend).rglob("*") if path.suffix in (".zarr", ".h5"))
        work(originals, backend, int(seed), int(first), int(last), Path(folder, "changed"), Path(log))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="mutations of each backend")
    args = parser.parse_args(words)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="closerlook-mutations-") as name:
        for backend in BACKENDS:
            write_stores(Path(name, backend), backend)
            found = run(args.seed, args.count, backend, Path(name))
            print(f"{backend}: {', '.join(f'{found[result]} {result}' for result in OUTCOMES)}", flush=True)
            total += found
    print(f"store mutations (seed {args.seed}): {total.total()}: {', '.join(f'{total[r]} {r}' for r in OUTCOMES)}")
    return 1 if total.total() != total["refused"] + total["read"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
