"""A vision-language model before it is built: card, preprocessing, weight files, the classes and what is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError
from extract.classes.choices import is_choices
from extract.classes.spaces import BUILT_IN, ClassSpace, class_space
from extract.datasets.spaces import space_for
from extract.libraries import saved
from extract.libraries.named import LOCAL
from extract.libraries.vlm.processors import preprocessing_of_line, processor_of
from extract.libraries.vlm.prompts import prompt_of
from extract.libraries.vlm.questions import Question, question_for, question_of
from extract.models.base import Prepared
from extract.models.cards import model_card
from extract.models.remote_code import OPTION
from extract.models.spec import ModelSpec


@dataclass(frozen=True)
class PreparedVlm(Prepared):
    """A vision-language model as known without building it.

    Attributes
    ----------
    question
        What is asked.
    names
        Of the classes, by output; empty until they are known.
    saved_digest
        Of configuration, tokenizer and processor.
    chooses
        Whether it answers in the options of questions, each image's own.
    """

    question: Question = field(default_factory=lambda: Question(""))
    names: tuple[str, ...] = ()
    saved_digest: str = ""
    chooses: bool = False


def check_kind(spec: ModelSpec, source: saved.Source) -> None:
    """Raise UserError where a saved model does not take images and text to text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if source.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or spec.flag(OPTION):
        return
    kind = source.architecture or f"a model of type {source.model_type}"
    raise UserError(
        f"{spec.where}: {spec.id} is {kind[:80]}, not a model that takes images and text to text (LLaVA, Qwen-VL,"
        " InternVL, Idefics, SmolVLM ...)"
    )


def prepare(spec: ModelSpec) -> PreparedVlm:
    """Return what is known of a vision-language model without building it."""
    question = question_of(spec)
    stated = _stated_space(spec)
    source = saved.source_of(spec)
    check_kind(spec, source)
    files = saved.weight_files(spec, source)
    processor = processor_of(spec, source)
    preprocessing = preprocessing_of_line(spec, source, processor)
    card = model_card(
        spec,
        input_size=preprocessing.geometry.output_size[0],
        preprocessing=preprocessing.to_record(),
        weights_digest=saved.weights_digest(files, known=True),
        class_space=spec.options.get("classes", ""),
        extra={
            "architecture": source.architecture,
            "model_type": source.model_type,
            "logits_only": True,
            "question": asdict(question),
        },
    )
    if spec.name.startswith(LOCAL):  # the same folder is the same model wherever it lies
        card = replace(card, name=Path(spec.name.removeprefix(LOCAL)).name)
    weights, digest = files[0] if len(files) == 1 else None, saved.files_digest(source)
    prepared = PreparedVlm(
        spec, card, preprocessing, weights, files_digest=digest, question=question, saved_digest=digest,
        answers_questions=True,
    )  # fmt: skip
    # A prompt that cannot be made is an error now, not after the weights have been read.
    _prompt(prepared, processor, ("one", "other") if stated is None else stated.names)
    return prepared if stated is None else with_classes(prepared, stated, processor)


def _stated_space(spec: ModelSpec) -> ClassSpace | None:
    """Return the classes of a line that names a file or a built-in class space; None for those of a dataset."""
    classes = spec.options.get("classes", "")
    if classes.endswith(".txt"):
        return space_for(classes, (), where=spec.where)
    return class_space(classes) if classes in BUILT_IN else None


def of_run(prepared: Prepared, spaces: Mapping[str, ClassSpace]) -> Prepared:
    """Return a model with the classes of a run's dataset; see `Library.with_classes_of`."""
    if not isinstance(prepared, PreparedVlm) or prepared.names:
        return prepared
    stated = prepared.spec.options.get("classes", "")
    different = {space.digest: space for space in spaces.values()}
    if stated:
        found = spaces.get(stated) or next((space for space in different.values() if space.id == stated), None)
    elif len(different) > 1:
        raise UserError(
            f"{prepared.spec.where}: the datasets of this run are of several class spaces: say whose classes"
            f" {prepared.card.id} answers in, {' or '.join(f'classes={name}' for name in sorted(spaces))}"
        )
    else:
        found = next(iter(different.values()), None)
    if found is None:
        return prepared
    return with_classes(prepared, found)


def with_classes(prepared: PreparedVlm, space: ClassSpace, processor: Any = None) -> PreparedVlm:
    """Return a model that scores the names of a class space; they and the whole prompt are part of its identity."""
    spec = prepared.spec
    if processor is None:
        processor = processor_of(spec, saved.source_of(spec))
    chooses = is_choices(space)
    if chooses:  # each image has its own options, and perhaps its own question
        prepared = replace(prepared, question=question_for(prepared.question, ""), chooses=True)
    prompt = _prompt(prepared, processor, [f"{{{letter}}}" for letter in space.names] if chooses else space.names)
    asked_of = {"question": asdict(prepared.question), "prompt": prompt}
    extra = {**prepared.card.extra, "n_classes": len(space), **asked_of}
    asked = json.dumps(
        [prepared.saved_digest, asdict(prepared.question), prompt, space.names], ensure_ascii=False, sort_keys=True
    )
    return replace(
        prepared,
        card=replace(prepared.card, class_space=space.id, extra=extra),
        files_digest=hashlib.sha256(asked.encode()).hexdigest(),
        class_names=space.wnids or space.names,
        names=space.names,
    )


def _prompt(prepared: PreparedVlm, processor: Any, names: Sequence[str]) -> str:
    try:
        prepared.question.texts(names)
        return prompt_of(processor, prepared.question, names).text
    except UserError as error:
        raise UserError(f"{prepared.spec.where}: {prepared.spec.id}: {error}") from error
