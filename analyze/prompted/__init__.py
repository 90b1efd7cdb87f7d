"""Any prompts without the model: logits from stored embeddings, heads and embeddings of templates."""

from analyze.prompted.heads import union
from analyze.prompted.sources import prompt_sets, prompted_sources
from analyze.prompted.stores import UNION, PromptedStore
from analyze.prompted.templates import ALL_TEMPLATES, WEIGHTS, TemplateChoice, count_of

__all__ = [
    "ALL_TEMPLATES",
    "UNION",
    "WEIGHTS",
    "PromptedStore",
    "TemplateChoice",
    "count_of",
    "prompt_sets",
    "prompted_sources",
    "union",
]
