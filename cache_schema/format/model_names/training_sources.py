"""Training sources by name, with their nominal number of images.

Sizes are those their owners state, rounded as they are commonly quoted (LAION-2B is 2 thousand million, not
the count of links that were still alive on some day). None where no size is public. They order and label
points in a figure; no metric reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

_M, _B = 1_000_000, 1_000_000_000

SOURCES: Mapping[str, int | None] = {
    # supervised
    "imagenet-1k": 1_281_167,
    "imagenet-12k": 12 * _M,
    "imagenet-21k": 14_197_122,
    "imagenet-21k-p": 11_060_223,
    "bamboo": None,
    "jft-300m": 300 * _M,
    # weakly or semi-supervised
    "instagram-1b": _B,
    "instagram-3.6b": 3_600 * _M,
    "yfcc-100m": 100 * _M,
    "imagenet-21k-unlabelled": None,
    # self-supervised
    "lvd-142m": 142 * _M,
    "lvd-1689m": 1_689 * _M,
    "sat-493m": 493 * _M,
    "merged-30m": 30 * _M,
    "merged-38m": 38 * _M,
    # images with captions
    "wit": 400 * _M,
    "laion-80m": 80 * _M,
    "laion-400m": 400 * _M,
    "laion-2b": 2 * _B,
    "laion-aesthetic": 900 * _M,
    "laion-5b": 5 * _B,
    "merged-2b": 2 * _B,
    "cc-12m": 12 * _M,
    "yfcc-15m": 15 * _M,
    "datacomp-s": 1_400_000,
    "datacomp-m": 14 * _M,
    "datacomp-l": 140 * _M,
    "datacomp-1b": 1_400 * _M,
    "commonpool-s": 12_800_000,
    "commonpool-m": 128 * _M,
    "commonpool-l": 1_280 * _M,
    "commonpool-xl": 12_800 * _M,
    # subsets of CommonPool by filter; the published shares of the pool
    "commonpool-s-basic": 3 * _M,
    "commonpool-m-basic": 30 * _M,
    "commonpool-l-basic": 298 * _M,
    "commonpool-s-text": 3_200_000,
    "commonpool-m-text": 31 * _M,
    "commonpool-l-text": 317 * _M,
    "commonpool-s-image": 3 * _M,
    "commonpool-m-image": 29 * _M,
    "commonpool-l-image": 293 * _M,
    "commonpool-s-laion": 1_300_000,
    "commonpool-m-laion": 13 * _M,
    "commonpool-l-laion": 130 * _M,
    "commonpool-xl-laion": 1_300 * _M,
    "commonpool-s-clip": 3_800_000,
    "commonpool-m-clip": 38 * _M,
    "commonpool-l-clip": 384 * _M,
    "commonpool-xl-clip": 3_800 * _M,
    "datacomp-dr-1b": 1_280 * _M,
    "dfn-2b": 2 * _B,
    "dfn-5b": 5 * _B,
    "dfn-dr-2b": 2 * _B,
    "metaclip-400m": 400 * _M,
    "metaclip-2.5b": 2_500 * _M,
    "metaclip-worldwide": 29 * _B,
    "metaclip-altogether": None,
    "webli": 10 * _B,
    "perception-encoder": None,
    "laion-coco-nllb": None,
    # other pre-training
    "beit3": None,
    "aimv2": None,
    "radio": None,
    "segment-anything-1b": 11 * _M,
    "segment-anything-video": None,
    "florence-2": None,
    "paligemma": None,
    "sapiens": None,
    "internvl": None,
    "qwen-vl": None,
    "gemma": None,
    "deepseek": None,
    "lingbot": None,
    "unknown": None,
}
"""Training source -> nominal number of training images, None where it is not public."""
