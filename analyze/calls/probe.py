"""Probes of encoders without a head as one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from analyze.calls.arguments import Names, Progress, names_of, opened_cache, silent, warn_incomplete
from analyze.evaluate import evaluate as evaluate_cache
from analyze.interactive import Results
from analyze.probes.options import ProbeOptions
from analyze.probes.whole_cache import ProbedCache, probe_cache
from analyze.results import conform
from cache_schema.reading.cache import Cache, open_cache
from cache_schema.reading.places.addresses import is_address, meant_address
from closerlook_common.errors import UserError


def probe(
    cache: str | Path | Cache,
    *,
    reference: str,
    methods: Names = ("linear", "knn"),
    shots: Sequence[int] = (),
    seeds: int = 3,
    seed: int = 0,
    held_out: float = 0.1,
    l2_path: Sequence[float] | None = None,
    features: str = "plain",
    k: int = 20,
    temperature: float = 0.07,
    models: Names | None = None,
    datasets: Names | None = None,
    to: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Fit heads on stored features of encoders that have none, as ``analyze probe`` does.

    Each probe is a model of its own in the cache (``dinov2[linear]``, ``dinov2[knn]``), with predictions on every set
    of the encoder; a linear probe of the whole reference also has features, a head and a reference store. ``evaluate``,
    ``ood`` and every figure take probes as they take any model. Stores that are there already are left as they are.

    Parameters
    ----------
    cache
        Folder or address of the cache, or an open cache.
    reference
        Dataset to fit on: a stored training set with features, else the bank of a reference store.
    methods
        ``linear``: multinomial logistic regression on float64 features, its L2 penalty chosen by accuracy on held-out
        rows, then fitted on all rows (CLIP's protocol). ``knn``: cosines to the reference, votes of the ``k`` nearest
        weighted by ``exp(cosine / temperature)`` (DINO's protocol).
    shots
        Images a class to fit on, ``(1, 5, 16)`` say; all of the reference when empty.
    seeds
        Draws of each number of shots.
    seed
        Of the held-out rows and of the first draw.
    held_out
        Share of each class of the reference that the penalty is chosen on. Shots are drawn from the others.
    l2_path
        Strengths of the penalty to try, 1 / C in scikit-learn's words; None for CLIP's search from 1e-6 to 1e6, one
        value for that one.
    features
        What a probe is fitted on: ``plain``, features as the encoder gives them; ``unit``, for a linear probe scaled to
        unit length; or tokens that ``extract --arrays tokens`` stored: ``class``, the class token before the
        projection, as CLIP's probes, or ``class+mean``, that and the mean of the patches, as DINOv2's; or that
        ``extract --arrays blocks`` stored: ``block1`` to ``block4``, the class token after one of four blocks.
    k, temperature
        Of the neighbours.
    models
        Ids or patterns; all that have features and no logits when None.
    datasets
        Ids or patterns of the sets to predict; all when None.
    to
        Folder of the cache that the stores are written to; the same cache when None.
    progress
        Called with (model, models done, models in all).

    Returns
    -------
    Results
        The accuracies of the probed models, with their intervals.

    Raises
    ------
    UserError
        An option is out of range, or no model could be probed.

    Warns
    -----
    IncompleteWarning
        Models or datasets were left out: no features, other classes, a fit that did not converge.

    References
    ----------
    Radford et al. 2021 (CLIP), appendix A.3; Caron et al. 2021 (DINO), ``eval_knn.py``.

    Examples
    --------
    >>> closerlook.probe("cache", reference="imagenet-train")    # doctest: +SKIP
    """
    options = ProbeOptions(
        reference=reference,
        methods=tuple(names_of(methods) or ()),
        shots=tuple(shots),
        seeds=seeds,
        seed=seed,
        held_out=held_out,
        l2_path=None if l2_path is None else tuple(float(l2) for l2 in l2_path),
        features=features,
        k=k,
        temperature=temperature,
    )
    opened = opened_cache(cache)
    done, table = probe_and_evaluate(
        opened, to, options, models=names_of(models), datasets=names_of(datasets), progress=progress or silent
    )
    warn_incomplete(done.left_out, [f"{store.path.name}: {store.reason}" for store in opened.refused()])
    return Results(table)


def probe_and_evaluate(
    cache: Cache,
    to: str | Path | None,
    options: ProbeOptions,
    *,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    backend: str = "zarr",
    progress: Progress = silent,
) -> tuple[ProbedCache, pl.DataFrame]:
    """Write the stores of probes; return what came of it, and the accuracies of the probed models.

    Raises
    ------
    UserError
        Nothing could be probed, or stores cannot be written to ``to``.
    """
    where = str(cache.title if to is None else to)
    if is_address(where) or meant_address(where):
        raise UserError(f"{where}: probes are written to a folder; name one, then 'python -m cache_schema push'")
    done = probe_cache(cache, where, options, models=models, datasets=datasets, backend=backend, progress=progress)
    if not done.models:
        raise UserError("; ".join(f"{what}: {reason}" for what, reason in done.left_out.items()))
    found = evaluate_cache(open_cache(where), only=["accuracy"], models=done.models, datasets=datasets)
    done.left_out |= found.failures
    return done, conform(found.table).with_columns(command=pl.lit("metrics"))
