"""The heads of the models in a wave: text heads of every prompt set, and models' own last layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cache_schema
from closerlook_common.errors import StoreExistsError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.classes.words import is_words
from extract.models.base import Head, HeadUnavailable, LoadedModel
from extract.passes.events import Event, Listener, text_progress
from extract.passes.faults import raise_if_full, reason_of
from extract.passes.waves import Member
from extract.planning.jobs import HeadJob, Job, head_identity
from extract.planning.mismatches import is_zero_shot
from extract.planning.options import RunOptions

HeadKey = tuple[str, str]
"""Digest of a class space (of words, its name), and name of a prompt set; empty where there is none."""


def head_key(job: Job | HeadJob) -> HeadKey:
    """Return which text head a job needs, or makes."""
    space = job.dataset.class_space if isinstance(job, Job) else job.class_space
    if job.prompts is None or space is None:
        return "", ""
    return space.id if is_words(space) else space.digest, job.prompts.name


def cut_note(model: LoadedModel, what: str, texts: Sequence[str], cut: Sequence[int]) -> str:
    """Return a line on texts that the text context cuts; empty where there are none.

    Parameters
    ----------
    model
        That reads them.
    what
        Whose texts they are.
    texts
        All of them.
    cut
        Those that are cut, by number.
    """
    if not cut:
        return ""
    first = texts[cut[0]]
    shown = first if len(first) <= 60 else first[:57] + "..."
    return (
        f"{model.card.id}: {len(cut):,} of {len(texts):,} {what} are longer than the text context and are cut,"
        f" the first is {shown!r}"
    )


class Heads:
    """Makes heads and writes those that are to be stored.

    Parameters
    ----------
    options
        Of the run.
    listener
        Called with every event.
    record
        Returns the record of a run at a precision.
    fail
        Reports that a model failed on a dataset ("" for none).
    """

    def __init__(
        self,
        options: RunOptions,
        listener: Listener,
        record: Callable[[str], dict[str, Any]],
        fail: Callable[[str, str, BaseException], None],
    ) -> None:
        self.options, self.listener, self._record, self._fail = options, listener, record, fail

    def zero_shot(self, member: Member, jobs: Sequence[Job], heads: Sequence[HeadJob]) -> dict[HeadKey, Exception]:
        """Make the text heads of a zero-shot model, into ``member.heads``.

        Returns
        -------
        dict
            Why a head could not be made; it stops only the jobs that need it.
        """
        if not is_zero_shot(member.prepared):
            return {}
        wanted: dict[HeadKey, tuple[ClassSpace, PromptSet, bool]] = {}
        for job in jobs:
            if job.prompts is not None and job.dataset.class_space is not None:
                wanted[head_key(job)] = (job.dataset.class_space, job.prompts, False)
        for head in heads:
            assert head.prompts is not None
            wanted[head_key(head)] = (head.class_space, head.prompts, True)
        refused: dict[HeadKey, Exception] = {}
        for key, (space, prompts, write) in wanted.items():
            what = f"text head {space.id}, {prompts.name}"
            member.model.on_texts = text_progress(self.listener, member.id, what)
            try:
                member.model.keeps_texts = write and "texts" in self.options.arrays and not is_words(space)
                made = member.model.head(space, prompts)
                if not is_words(space):  # no images are compared with words here
                    member.heads[key] = replace(made, text_embeddings=None)  # they are only stored
                self._report_cut(member, space, prompts)
                if write:
                    self._write(member, space, prompts, made)
            except Exception as error:  # noqa: BLE001  # one prompt set must not stop the others
                raise_if_full(self.options.cache, error)
                is_known = isinstance(error, HeadUnavailable)
                refused[key] = HeadUnavailable(f"{what}: {reason_of(error)}") if is_known else error
        return refused

    def own(self, member: Member, heads: Sequence[HeadJob]) -> None:
        """Write the last layer of a model that has one."""
        if not member.model.feature_width:
            return  # logits alone: no layer acts on features
        for head in heads:
            try:
                self._write(member, head.class_space, None, member.model.head(head.class_space, None))
            except Exception as error:  # noqa: BLE001
                raise_if_full(self.options.cache, error)
                self._fail(member.id, "", error)

    def _report_cut(self, member: Member, space: ClassSpace, prompts: PromptSet) -> None:
        texts = list(dict.fromkeys(text for one in prompts.texts(space) for text in one))
        cut = member.model.cut_texts(texts)
        if note := cut_note(member.model, f"texts of the prompt set {prompts.name}", texts, cut):
            self.listener(Event("note", member.id, text=note))

    def _write(self, member: Member, space: ClassSpace, prompts: PromptSet | None, head: Head) -> None:
        digest, arrays = member.model.card.weights_digest, self.options.arrays
        identity = head_identity(member.prepared, digest, space, prompts, arrays)
        record = self._record(member.model.precision) | (prompts.digests_for(space) if prompts else {})
        if (plain := head_identity(member.prepared, digest, space, prompts)) != identity:
            record["extends"] = [plain]  # a head without these arrays: this one is read in its place
            if head.text_embeddings is None:
                raise HeadUnavailable(f"{member.id}: its library gives no embeddings of single templates")
        try:
            cache_schema.write_head(
                self.options.cache,
                model=replace(member.model.card, head_kind=head.kind),
                class_space=space.id,
                class_names=space.names,
                weight=head.weight,
                bias=head.bias,
                prompt_set=head.prompt_set,
                templates=head.templates,
                logit_scale=head.logit_scale,
                logit_bias=head.logit_bias,
                normalize_features=head.normalize_features,
                affine=head.affine,
                residual=head.residual if math.isfinite(head.residual) else None,
                text_sum=None if is_words(space) else head.text_sum,
                n_templates=head.n_templates or None,
                text_embeddings=head.text_embeddings,
                identity=identity,
                backend=self.options.backend,
                record=record,
            )
        except StoreExistsError:
            return  # another worker was quicker; a head of that identity is that head
