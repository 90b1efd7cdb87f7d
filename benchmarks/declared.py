"""The rows that each benchmark writes: name -> unit, and what is asked (of the ratio to the peer, if a row has one)."""

from __future__ import annotations

Rows = dict[str, tuple[str, str]]

COVERED = (
    "accuracy", "calibration gap", "ECE", "NLL", "AURC", "correctness AUROC", "risk at coverage", "coverage at risk",
    "AUROC", "FPR95", "D2", "median rank", "paired difference", "EER", "partial AUROC",
)  # fmt: skip
TESTED = ("ECE", "Spiegelhalter", "Kolmogorov-Smirnov", "Kuiper", "paired difference", "McNemar")
FAMILY_CASES = (
    "5 families of 2 to 6", "6 families of 2 to 5", "8 families of 2 to 12", "12 families of 10", "30 families of 7",
    "45 families of 1 to 48", "54 families of 1 to 60", "40 independent models", "the study's backbones",
)  # fmt: skip
FAMILY_TESTS = ("ordinary", "pearson", "spearman", "kendall", "lines within", "lines apart")
FAMILY_INTERVALS = ("correlations", "lines", "theil-sen", "median", "ordinary bootstrap")
LINEAR = ("mds", "rmds", "vim", "residual", "she", "nci", "fdbd", "gradnorm", "energy")
"""Detectors of features, head and sums whose only products are linear maps of the features, scored in one pass."""
SHAPED = ("dice", "react", "ash_s", "scale", "klm", "pnml")
"""Detectors with a product of their own: of other weights, other features, or the softmax (scale: none)."""
BANK = ("knn", "knn, float16 bank", "knn, 128 components", "knn, 10 rows a class", "nnguide", "relation")
NAIVE = ("mds", "rmds", "klm", "dice", "gradnorm", "relation", "knn (faiss)", "nnguide (faiss)")
PYTORCH_OOD = ("mds", "rmds", "klm", "dice", "vim", "fdbd", "knn", "nnguide", "pnml", "she")
ZOO = ("zoo", "zoo, naive's", "zoo, pytorch-ood's")
"""All detectors of one model in one pass, and those of them that a peer has."""
DETECTOR_TASKS = (
    "linear", "linear and shaped", "mds + rmds", *LINEAR, *SHAPED, "gen", "openmax", *BANK, *ZOO,
    *(f"naive {name}" for name in NAIVE), *(f"pytorch-ood {name}" for name in PYTORCH_OOD),
)  # fmt: skip


def shares(part: str, names: tuple[str, ...]) -> Rows:
    """Return the rows of simulated intervals: how many cases, how many draws are covered, and wrong at worst."""
    found: Rows = {}
    for name in names:
        found[f"{part}/{name}/cases"] = ("cases", "")
        found[f"{part}/{name}/covered"] = ("share: least, median, most", "")
        found[f"{part}/{name}/wrong"] = ("share, worst", "")
    return found


def extraction(device: str, marks: dict[str, str]) -> Rows:
    """Return the rows of a device."""
    units = {
        "timm": "s", "pass": "s", "loop": "s", "decode": "s", "forwards": "s", "decoded": "s", "a": "x", "b": "x",
        "c": "%", "c_wait": "%", "c_cpu": "%", "c_wall": "%", "d": "x", "e": "x", "f": "x", "g": "x",
        "rate": "images x models a second", "busy": "%",
    }  # fmt: skip
    return {f"{device}/{name}": (unit, marks.get(name, "")) for name, unit in units.items()}


DECLARED: dict[str, Rows] = {
    "analysis": {
        "card/asked": ("s", ">= 20"),
        "card/peers": ("s", ""),
        "card/all suites": ("s", ""),
        "card/rows": ("rows", ""),
        "pass/reading": ("ms", ""),
        "pass/one temperature": ("ms", "<= 1.5"),
        "pass/GEN": ("ms", "<= 1.5"),
        "pass/three temperatures": ("ms", "<= 1.5"),
        "pass/NLL": ("ms", ""),
        "memory/n": ("MiB", "<= 300"),
        "memory/10 n": ("MiB", "<= 300"),
        "memory/growth": ("x", "flat"),
        "study/images": ("million images", ""),
        "study/size": ("GB", ""),
        "study/rows": ("rows", ""),
        "study/every metric": ("s", "<= 60"),
        "study/bootstrap": ("s", "<= 600"),
        "growth/tenth of n": ("us an image", "flat"),
        "growth/n": ("us an image", "flat"),
        "growth/10 n": ("us an image", "flat"),
    },
    "coverage": {
        **shares("interval", COVERED),
        **{f"p/{name}": ("share below 0.05: 150, 1,000, 5,000 rows", "") for name in TESTED},
    },
    "coverage_detection": {
        **shares("mean", ("AUROC", "FPR95", "AUPR", "EER", "partial AUROC")),
        **shares("difference", ("AUROC", "FPR95", "AUPR")),
        **{f"p/{name}/cases": ("cases", "") for name in ("AUROC", "FPR95", "AUPR")},
        **{f"p/{name}/below": ("share below 0.05: least, median, most", "") for name in ("AUROC", "FPR95", "AUPR")},
    },
    "coverage_families": {
        **{
            f"p/{case}/{test}": ("share below 0.05, by how alike families are", "")
            for case in FAMILY_CASES
            for test in FAMILY_TESTS
        },
        **{f"interval/{name}": ("share covered: least, most", "") for name in FAMILY_INTERVALS},
    },
    "coverage_robustness": {
        f"{kind}/{row}/{name}": unit
        for kind in ("images of its own", "shared images")
        for row in ("model", "median")
        for name, unit in (("cases", ("cases", "")), ("covered", ("share: least, median, most", "")))
    },
    "extraction": {
        **extraction("cpu", {"a": ">= 4", "b": "<= 1.15", "c": "< 5", "d": "<= 0.40", "e": "flat"}),
        **extraction("cuda", {"f": ">= 0.9", "e": "flat"}),
    },
    "decoding": {
        **{
            f"{images}/{name}": row
            for images in ("4,000 images",)
            for name, row in {
                "before": ("s", ""),
                "apart": ("s", ""),
                "one decode": ("s", ""),
                "decode": ("s", ""),
                "forwards": ("s", ""),
                "before over one decode": ("x", ">= 2"),
                "apart over one decode": ("x", ""),
                "one decode over limit": ("x", "<= 1.15"),
                "before over one decode, on a core": ("x", ""),
                "apart over one decode, on a core": ("x", ""),
            }.items()
        },
        **{
            f"parts/{name}": ("ms on a core", "")
            for name in ("entropy decoding", "inverse transform", "decoding to RGB", "colour conversion", "opening",
                         "Pillow", "compiled", "the first compiled")
        },
    },
    "detectors": {
        **{f"seconds/{task}": ("s", "") for task in (*DETECTOR_TASKS, "gemm", "gemm bank")},
        **{f"memory/{task}": ("MB", "") for task in DETECTOR_TASKS},
        **{f"auroc/{task}": ("AUROC", "") for task in DETECTOR_TASKS},
        **{f"mds and rmds/{peer}": ("x", ">= 100") for peer in ("naive", "pytorch-ood")},
        "klm/naive": ("x", ">= 1000"),
        "klm/pytorch-ood": ("x", ""),
        **{f"dice/{peer}": ("x", ">= 50") for peer in ("naive", "pytorch-ood")},
        "products/linear": ("x", "<= 3"),
        **{f"products/{name}": ("x", "") for name in ("linear and shaped", *SHAPED)},
        **{f"{task}/products": ("products with the bank", "<= 2.5" if task == "zoo" else "") for task in ZOO},
        **{f"zoo/{peer}": ("x", "") for peer in ("naive", "pytorch-ood")},
        "bank products/knn": ("x", "<= 1.2"),
        "bank products/faiss": ("x", ""),
        "most memory": ("MB", "<= 1000"),
    },
    "listing": {
        f"{count}/{name}": ("s", "") for count in (10_000, 100_000) for name in ("limit", "opened", "catalogue")
    },
    "store": {
        "np.load": ("s", ""),
        **{
            f"{backend}/{name}": (unit, "")
            for backend in ("zarr", "hdf5")
            for name, unit in {
                "size": "x float32", "write": "s", "read": "s", "blocks": "s", "listed": "s", "opened": "ms",
                "60 columns": "ms",
            }.items()
        },
    },
    "probe": {
        f"L2 {penalty}/{name}": (unit, "")
        for penalty in (1, 100)
        for name, unit in {
            "Closerlook": "s", "scikit-learn": "s", "iterations": "iterations", "difference": "probability",
            "loss": "mean loss above the smaller",
        }.items()
    },
}  # fmt: skip
"""Script -> its rows. A name is unique within a script, and begins with the script's name in figures.json."""
