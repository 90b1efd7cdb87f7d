"""Names as a reader sees them: metrics, scores and calibrators in tables, figures and the report."""

from __future__ import annotations

from analyze.metrics.registry import find_metric

SCORE_TITLES = {
    "study": "MCM or MSP",
    "msp": "MSP",
    "mcm": "MCM",
    "l-mcm": "L-MCM",
    "gl-mcm": "GL-MCM",
    "mls": "max logit",
    "energy": "energy",
    "knn": "kNN",
    "vim": "ViM",
    "mds": "Mahalanobis",
    "rmds": "relative Mahalanobis",
    "mds++": "Mahalanobis++",
    "rmds++": "relative Mahalanobis++",
    "gen": "GEN",
    "odin": "ODIN",
    "react": "ReAct",
    "dice": "DICE",
    "she": "SHE",
    "klm": "KL-matching",
    "fdbd": "fDBD",
    "nnguide": "NNGuide",
}

ACRONYMS = {
    "imagenet": "ImageNet",
    "ood": "OOD",
    "inaturalist": "iNaturalist",
    "openimage": "OpenImage",
    "objectnet": "ObjectNet",
    "sun": "SUN",
    "places": "Places",
    "textures": "Textures",
    "ninco": "NINCO",
    "ssb": "SSB",
    "ytbb": "YTBB",
}


def metric_title(metric: str) -> str:
    """Return the metric's name as a paper prints it."""
    row = find_metric(metric)
    return row.title if row is not None else metric.replace("_", " ")


def in_percent(metric: str) -> bool:
    """Return whether papers print the metric in percent."""
    row = find_metric(metric)
    return row is not None and row.in_percent


def is_share_of_images(metric: str) -> bool:
    """Return whether the metric is a share of images: what a probit or logit axis is meant for."""
    row = find_metric(metric)
    return row is not None and row.unit == "share"


def score_title(score: str) -> str:
    """Return the OOD score's or detector's name as a paper prints it."""
    return SCORE_TITLES.get(score, score)


def dataset_title(dataset: str) -> str:
    """Return the dataset's name as a paper prints it (``imagenet-a`` -> ``ImageNet-A``).

    Examples
    --------
    >>> dataset_title("imagenet-v2-a")
    'ImageNet-V2-A'
    """
    if dataset.lower() != dataset or not dataset:
        return dataset
    if dataset == "imagenet-val":
        return "ImageNet"
    parts = dataset.split("-")
    shown = [
        ACRONYMS.get(part, part.capitalize() if len(part) > 2 or index == 0 else part.upper())
        for index, part in enumerate(parts)
    ]
    return "-".join(shown)


def factor_title(factor: str) -> str:
    """Return a visual factor's name as a paper prints it (``partial_view`` -> ``Partial view``)."""
    return factor.replace("_", " ").capitalize()
