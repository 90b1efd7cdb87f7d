"""A cache's zero-shot models under the prompts that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analyze.prompted.heads import check_templates, check_union
from analyze.prompted.stores import UNION, Pretraining, PromptedStore
from analyze.prompted.templates import ALL_TEMPLATES, TemplateChoice
from analyze.reading.sources import Source, sources_of
from closerlook_common.errors import StoreNotFoundError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.kinds.heads import HeadStore


def prompt_sets(cache: Cache) -> list[str]:
    """Return the names of the prompt sets of all heads for class spaces that the cache has images of, sorted."""
    spaces = {store.dataset.class_space for store in cache.stores("predictions")}
    heads = [head for head in cache.stores("head") if head.details["class_space"] in spaces]
    return sorted({str(head.details["prompt_set"]) for head in heads} - {""})


def prompted_sources(
    cache: Cache, name: str, choice: TemplateChoice = ALL_TEMPLATES
) -> tuple[list[Source], list[tuple[str, str, str]]]:
    """Return a cache's zero-shot sources under a prompt set, and (model, dataset, reason) of those that have none.

    Parameters
    ----------
    cache
        With embeddings and heads.
    name
        A prompt set, or several joined by ``+``.
    choice
        Which of their templates count, and how much each.

    Raises
    ------
    UserError
        No head of that name is in the cache, or the choice fits none of its heads.
    """
    parts = name.split(UNION)
    known = prompt_sets(cache)
    for part in parts:
        if part not in known:
            raise UserError(
                f"no head of the prompt set {part!r} in this cache{nearest(part, known)}; there are"
                f" {', '.join(known) or 'none'} ('extract --prompts SET' keeps more)"
            )
    away = _Pretrainings(cache, choice.pretraining)
    sources, missing = [], []
    unfit: list[str] = []
    for source in sources_of(cache):
        card = source.store.model
        if card.head_kind != "zero-shot" or source.is_summary:
            continue
        if not source.store.has_features:
            missing.append((source.model, source.dataset, "its store holds no embeddings"))
            continue
        try:
            heads = [cache.head(source.model, source.store.dataset.class_space, part) for part in parts]
            check_union(heads)
            numbers = _numbers(heads, choice, name)
            store = PromptedStore(source.store, heads, choice, numbers, away.of(source.model))
        except (StoreNotFoundError, UserError) as error:
            missing.append((source.model, source.dataset, str(error)))
            unfit += [str(error)] if choice.needs_texts else []
            continue
        sources.append(Source(source.model, source.dataset, source.role, store, store.digest, {}))
    if unfit and not sources:
        raise UserError(unfit[0])
    return sources, missing


def _numbers(heads: Sequence[HeadStore], choice: TemplateChoice, name: str) -> tuple[int, ...]:
    """Return the numbers of the templates that count; none where they all do, in the heads that are stored."""
    if not choice.needs_texts:
        return ()
    check_templates(heads)
    return choice.numbers([template for head in heads for template in head.templates], name)


class _Pretrainings:
    """The pretraining set of each model, looked up once."""

    def __init__(self, cache: Cache, name: str) -> None:
        self._cache, self._name = cache, name
        self._found: dict[str, Pretraining] = {}

    def of(self, model: str) -> Pretraining | None:
        if not self._name:
            return None
        if model not in self._found:
            self._found[model] = self._look_up(model)
        return self._found[model]

    def _look_up(self, model: str) -> Pretraining:
        try:
            reference = self._cache.reference(model, self._name)
        except StoreNotFoundError:
            store = self._cache.store(model, self._name)
            if not store.has_features:
                raise UserError(f"its store of {self._name} holds no embeddings") from None
            return Pretraining(store)
        normalized = reference.record.get("reference", {}).get("normalize_features", True)
        if reference.unit_feature_sum is None and not normalized:
            raise UserError(f"its reference {self._name} holds no sums of features at unit length")
        return Pretraining(reference)
