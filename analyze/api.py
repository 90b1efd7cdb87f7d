"""What a script or a notebook calls: numbers of a cache, OOD detectors and probes over it, trends over models.

The functions are here, and under the same names in ``closerlook``; in ``analyze`` itself these names are folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analyze.calls.arguments import (
    Names,
    Progress,
    load_plugins,
    names_of,
    opened_cache,
    settings_of,
    silent,
    warn_incomplete,
    whole_number,
)
from analyze.calls.probe import probe
from analyze.calls.trends import Trends, trends
from analyze.evaluate.engine import Running
from analyze.evaluate.into_table import evaluate_into
from analyze.evaluate.whole_cache import MetricPlan, evaluate_plan
from analyze.interactive import Results
from analyze.metrics._checks import switch
from analyze.ood.choices import options_of, require_ood_sets
from analyze.ood.whole_cache import rows_of, score_cache
from analyze.results import conform
from analyze.settings import Settings
from cache_schema.reading.cache import Cache
from closerlook_common.errors import UserError

__all__ = ["Trends", "evaluate", "ood", "probe", "trends"]


def evaluate(
    cache: str | Path | Cache,
    *,
    only: Names | None = None,
    models: Names | None = None,
    datasets: Names | None = None,
    settings: str | Path | Mapping[str, Mapping[str, Any]] | Settings | None = None,
    bootstrap: int | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    engine: str = "local",
    address: str = "",
    output: str | Path | None = None,
    fresh: bool = False,
    plugins: str | Path | Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Results:
    """Compute every number of every model and dataset of a cache, as ``analyze metrics`` does.

    Parameters
    ----------
    cache
        Folder or address of the cache, or an open cache.
    only
        Suites or metrics (``"accuracy"``, ``["ece", "auroc"]``); everything when None.
    models, datasets
        Ids or patterns with ``*`` and ``?``; all when None.
    settings
        Options in place of the study's defaults: a TOML file, or section -> option -> value.
    bootstrap
        Replicates of bootstrap intervals over images; as the settings say when None.
    seed
        Of the bootstrap.
    jobs
        Models at a time; the number of cores when None. The numbers do not depend on it.
    engine, address
        ``local``, or ``ray`` and the address of the cluster (extra ``ray``).
    output
        Result table on disk that the rows are put into (Parquet). What it holds already is not computed again.
    fresh
        Compute everything again; of use with ``output`` only.
    plugins
        Files of plug-ins to run and use (CONTRIBUTING.md, "Plug-ins").
    progress
        Called with (model, models done, models in all).

    Returns
    -------
    Results
        The rows of this call. A number that cannot be had is a row with its reason.

    Raises
    ------
    UserError
        The cache holds nothing to compute from, or a name or an option is not known (the nearest is named).

    Warns
    -----
    IncompleteWarning
        A model failed as a whole, or a store of the cache cannot be used.

    Examples
    --------
    >>> closerlook.evaluate("cache", only="ece").best("ece")    # doctest: +SKIP
    """
    load_plugins(plugins)
    opened = opened_cache(cache)
    if not opened.stores("predictions") and not opened.stores("summary") and not opened.refused():
        raise UserError(f"{opened.title} holds no sealed predictions or summaries")
    chosen = settings_of(settings, bootstrap=bootstrap, seed=seed)
    plan = MetricPlan(chosen, names_of(only), names_of(models), names_of(datasets))
    running = Running(whole_number("jobs", jobs, 1), engine=engine, address=address, progress=progress or silent)
    if output is not None:
        found = evaluate_into(Path(output), opened, plan, running, fresh=switch("fresh", fresh)).evaluation
    else:
        found = evaluate_plan(plan, opened, running=running)
    warn_incomplete(found.failures, [f"{store.path.name}: {store.reason}" for store in opened.refused()])
    return Results(conform(found.table).with_columns(command=pl.lit("metrics")))


def ood(
    cache: str | Path | Cache,
    *,
    id: str | None = None,
    reference: str | None = None,
    detectors: Names | None = None,
    near: Names = (),
    far: Names = (),
    full_spectrum: Names | None = None,
    validation: str = "",
    sweep: str = "",
    defaults: str = "openood",
    prompts: str | None = None,
    negatives: str = "",
    models: Names | None = None,
    settings: str | Path | Mapping[str, Mapping[str, Any]] | Settings | None = None,
    jobs: int | None = None,
    engine: str = "local",
    address: str = "",
    output: str | Path | None = None,
    fresh: bool = False,
    plugins: str | Path | Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Results:
    """Score post-hoc OOD detectors from features, head and reference, as ``analyze ood`` does.

    Parameters
    ----------
    cache
        Folder or address of the cache, or an open cache.
    id
        In-distribution set; the only one of role ``id`` when None.
    reference
        Training set whose reference stores detectors are fitted on; the only one when None, ``"none"`` for none.
    detectors
        Names of ``closerlook.detectors.names()``; all when None or ``"all"``.
    near, far
        OOD sets by distance; what the datasets' cards say when both are empty.
    full_spectrum
        Shifted sets that join the in-distribution rows; all whose card says so when None, ``()`` for none.
    validation
        In-distribution rows to fit on, ``NAME`` or ``NAME:SHARE``; a share of ``id`` is left out of the evaluation.
    sweep
        OOD set on which hyper-parameters are chosen; needs ``validation``.
    defaults
        Set of hyper-parameters: ``openood`` or ``paper``.
    prompts
        Prompt set of zero-shot heads; the default one when None.
    negatives
        Class space of NegLabel's negative labels; with ``SPACE:SHARE`` the share of them that is furthest from the
        classes.
    models
        Ids or patterns; all when None.
    settings
        As for ``evaluate``; ``[ood]`` threshold and aupr and the confidence level count.
    jobs
        Models at a time; one when None. The numbers do not depend on it.
    engine, address
        ``local``, or ``ray`` and the address of the cluster (extra ``ray``).
    output
        Result table on disk that the rows are put into. Models whose rows it holds already are left alone.
    fresh
        Compute everything again; of use with ``output`` only.
    plugins
        Files of plug-ins to run and use (CONTRIBUTING.md, "Plug-ins").
    progress
        Called with (model, models done, models in all).

    Returns
    -------
    Results
        The rows of this call, or with ``output`` those of ``analyze ood`` that the table holds now. A detector that
        cannot run on a model is a row with its reason.

    Raises
    ------
    UserError
        A name is not known, no set is out-of-distribution, or a detector that was named can run on no model.

    Warns
    -----
    IncompleteWarning
        A model failed as a whole.

    Examples
    --------
    >>> closerlook.ood("cache", detectors=["knn", "vim"], reference="imagenet-train")    # doctest: +SKIP
    """
    load_plugins(plugins)
    opened = opened_cache(cache)
    options = options_of(
        opened,
        settings_of(settings),
        id=id,
        reference=reference,
        detectors=None if detectors == "all" else names_of(detectors),
        near=names_of(near) or (),
        far=names_of(far) or (),
        full_spectrum=names_of(full_spectrum),
        validation=validation,
        sweep=sweep,
        defaults=defaults,
        prompts=prompts,
        negatives=negatives,
        models=names_of(models),
    )
    require_ood_sets(opened, options)
    path = None if output is None else Path(output)
    running = Running(whole_number("jobs", jobs, 1), engine=engine, address=address, progress=progress or silent)
    run = score_cache(opened, options, output=path, fresh=switch("fresh", fresh), running=running)
    warn_incomplete(run.failures, run.notes)
    if path is not None and path.exists():
        whole = Results(path).frame
        return Results(whole.filter(pl.col("command") == "ood", pl.col("model").is_in(run.models)))
    return Results(rows_of(run))
