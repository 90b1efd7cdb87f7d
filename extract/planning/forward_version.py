"""The number that says when the code which runs models changed what comes out."""

FORWARD_VERSION = 1
"""Bumped by hand when decoding, forward pass or heads give other numbers; part of every store's identity."""

CLIP_PROJECTED_IN_FLOAT32 = 2
COCA_NOT_NORMALIZED = 2


def forward_version(library: str, name: str, precision: str) -> int:
    """Return the version of a model's forward pass: what did not change need not be run again.

    Parameters
    ----------
    library, name
        Of the model.
    precision
        ``fp32``, ``bf16`` or ``fp16``.

    Examples
    --------
    >>> forward_version("open_clip", "ViT-B-32", "fp32"), forward_version("open_clip", "ViT-B-32", "bf16")
    (1, 2)
    """
    if library == "open_clip" and precision != "fp32":
        return CLIP_PROJECTED_IN_FLOAT32
    if library == "open_clip" and name.lower().startswith("coca"):
        return COCA_NOT_NORMALIZED
    return FORWARD_VERSION
