"""Images in, the log-likelihood of every answer out: the prompt is read once an image, and all answers continue it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from closerlook_common.errors import UserError
from extract.libraries.vlm.processors import on_device
from extract.libraries.vlm.prompts import Answers, Prompt
from extract.models.memory import free_cached, is_out_of_memory

CACHE_BYTES = 1 << 30
"""Keys, values and log-probabilities that a batch of answers may take; one answer of one image may take more."""

_ROWS_AN_IMAGE = 8
"""Answers of an image that have room together, before a further image is taken into the batch."""

TOLERANCE = 1e-3
"""Largest difference, of 1 nat or of the value if that is more, of a log-likelihood with and without the cache."""


@dataclass(frozen=True, eq=False)
class _Prefix:
    """Prompts with their images, read once.

    Attributes
    ----------
    first
        (b, V) log-probabilities of the first token of an answer.
    cache
        Keys and values.
    """

    first: torch.Tensor
    cache: Any


class Scorer:
    """A model, a prompt and its answers.

    Parameters
    ----------
    module
        Of transformers, with ``forward`` of image and text.
    processor
        Of the model.
    prompt, answers
        What is asked and what is scored.
    device
        Where the module is.
    """

    def __init__(self, module: Any, processor: Any, prompt: Prompt, answers: Answers, device: torch.device) -> None:
        self._module, self._processor, self._device = module, processor, device
        self._prompt, self._dropped = prompt, answers.dropped
        known = inspect.signature(module.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._keeps = "logits_to_keep" in known
        unique = dict.fromkeys(answers.tokens)
        place = {tokens: index for index, tokens in enumerate(unique)}
        self._answers = tuple(unique)
        self._columns = torch.tensor([place[tokens] for tokens in answers.tokens], device=device)
        groups: dict[int, list[int]] = {}
        for index, tokens in enumerate(self._answers):
            groups.setdefault(len(tokens), []).append(index)
        self._groups = [
            (
                torch.tensor(members, device=device),
                torch.tensor([self._answers[index] for index in members], device=device),
            )
            for _, members in sorted(groups.items())
        ]
        """Answers of one length: their places, and their tokens (k, L)."""
        self._rows = 0

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def __call__(self, images: torch.Tensor, prompts: Sequence[str] | None = None) -> torch.Tensor:
        """Return (B, C) float32 sums of the log-probabilities of every answer's tokens.

        Parameters
        ----------
        images
            (B, 3, H, W) uint8.
        prompts
            Of each image, all of as many tokens; the scorer's own prompt for every image when None.
        """
        texts = [self._prompt.text] * len(images) if prompts is None else list(prompts)
        if not self._rows:
            self._rows = self._fitting(images[:1], texts[:1])
        found = []
        start = 0
        while start < len(images):
            stop = start + max(self._rows // _ROWS_AN_IMAGE, 1)
            together = images[start:stop]
            try:
                found.append(self._scored(together, texts[start:stop]))
            except Exception as error:
                if self._rows == 1 or not is_out_of_memory(error):
                    raise
                widest = max(len(members) for members, _ in self._groups)
                self._rows = max(min(self._rows, widest * len(together)) // 2, 1)
            else:
                start += len(together)
                continue
            free_cached(self._device)
        return torch.cat(found)[:, self._columns]

    def check(self, images: torch.Tensor) -> None:
        """Compare a few answers with a forward pass over the whole text, without a cache.

        Parameters
        ----------
        images
            (2, 3, H, W) uint8, two different ones.

        Raises
        ------
        UserError
            The model gives other numbers with its cache, or the same for both images; the message begins with "its"
            or "it".
        """
        scores = self(images)
        if not bool(scores.isfinite().all()):
            raise UserError("its log-likelihoods for an image of noise are NaN or infinite")
        texts = [self._prompt.text] * len(images)
        prefix = self._read(images, texts)
        # Rows of one batch can differ in their last bits though their input is the same.
        first = prefix.first.float()
        if torch.allclose(first[0], first[1], rtol=1e-6, atol=1e-6):
            raise UserError("it answers the same for different images: its prompt has no place for the image")
        lengths = [len(tokens) for tokens in self._answers]
        for index in {lengths.index(min(lengths)), lengths.index(max(lengths))}:
            kept = float(scores[0, int((self._columns == index).nonzero()[0])])
            whole = self.without_cache(images[:1], self._answers[index])
            if abs(kept - whole) > TOLERANCE * max(1.0, abs(whole)):
                raise UserError(
                    f"its log-likelihood of an answer is {kept:.4f} when the prompt is read once and kept, {whole:.4f}"
                    " when it is read with the answer; it cannot be run by this library"
                )

    def without_cache(self, image: torch.Tensor, tokens: Sequence[int]) -> float:
        """Return the log-likelihood of an answer by one forward pass over prompt and answer.

        Parameters
        ----------
        image
            (1, 3, H, W) uint8.
        tokens
            Of the answer.
        """
        inputs, length = self._inputs(image, [self._prompt.text])
        added = torch.tensor([list(tokens)], device=self._device)
        for key, value in inputs.items():
            if key == "input_ids":
                inputs[key] = torch.cat([value, added], dim=1)
            elif _is_by_token(value, length):
                more = torch.ones_like(added) if key == "attention_mask" else torch.zeros_like(added)
                inputs[key] = torch.cat([value, more.to(value.dtype)], dim=1)
        logits = self._module(**inputs, use_cache=False).logits[:, length - 1 : -1]
        return float(_log_probabilities(logits).gather(2, added[..., None]).sum())

    # -- how it is done -----------------------------------------------------------------------------------------------

    def _inputs(self, images: torch.Tensor, texts: Sequence[str]) -> tuple[dict[str, torch.Tensor], int]:
        """Return what the model takes of prompts with images, and how many tokens each has."""
        pixels = images if on_device(self._processor) else images.cpu()
        found = self._processor(
            text=list(texts),
            images=[[image] for image in pixels],
            return_tensors="pt",
            add_special_tokens=self._prompt.adds_specials,
        )
        inputs = {key: torch.as_tensor(value).to(self._device) for key, value in found.items()}
        whole = inputs["input_ids"].shape[1]
        length = whole - self._dropped
        for key, value in inputs.items():
            if _is_by_token(value, whole):
                inputs[key] = value[:, :length]
        return inputs, length

    def _read(self, images: torch.Tensor, texts: Sequence[str]) -> _Prefix:
        inputs, _ = self._inputs(images, texts)
        keep = {"logits_to_keep": 1} if self._keeps else {}
        out = self._module(**inputs, use_cache=True, **keep)
        return _Prefix(_log_probabilities(out.logits[:, -1]), out[self._cache_name])

    def _scored(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Return (b, U) log-likelihoods of the different answers."""
        prefix = self._read(images, texts)
        scores = prefix.first.new_zeros((len(images), len(self._answers)))
        for members, tokens in self._groups:
            scores[:, members] = prefix.first[:, tokens[:, 0]]
            if tokens.shape[1] > 1:
                for part, block in _blocks(members, tokens, max(self._rows // len(images), 1)):
                    scores[:, part] += self._continued(prefix, block)
        return scores

    def _continued(self, prefix: _Prefix, tokens: torch.Tensor) -> torch.Tensor:
        """Return (b, k) log-probabilities of all tokens but the first of (k, L) answers, which continue (b) prompts."""
        images, count = len(prefix.first), len(tokens)
        cache = copy.deepcopy(prefix.cache)
        cache.batch_repeat_interleave(count)
        rows = tokens.repeat(images, 1)
        # No mask: nothing is padded, and Qwen-VL counts positions from a mask as if it had no cache.
        out = self._module(input_ids=rows[:, :-1], use_cache=True, **{self._cache_name: cache})
        found = _log_probabilities(out.logits).gather(2, rows[:, 1:, None])
        return found.sum((1, 2)).view(images, count)

    def _fitting(self, image: torch.Tensor, text: Sequence[str]) -> int:
        """Return how many answers have room in a batch: their keys and values, and the log-probabilities."""
        prefix = self._read(image, text)
        longest = max(map(len, self._answers))
        words = 2 * longest * prefix.first.shape[1] * prefix.first.element_size()
        # Twice: appending to a cache makes another one.
        return max(CACHE_BYTES // (2 * _cache_bytes(prefix.cache) + words), 1)


def _blocks(members: torch.Tensor, tokens: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from zip(members.split(size), tokens.split(size), strict=True)


def _is_by_token(value: torch.Tensor, length: int) -> bool:
    """Return whether an input has a number for each token of each prompt."""
    return value.ndim == 2 and value.shape[1] == length and not value.is_floating_point()


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def _cache_bytes(cache: Any) -> int:
    """Return the bytes of the tensors that a cache holds."""
    seen: dict[int, int] = {}
    waiting = [cache]
    visited: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, torch.Tensor):
            seen[id(item)] = item.numel() * item.element_size()
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
        elif type(item).__module__.startswith("transformers.cache_utils"):
            waiting += vars(item).values()
    return sum(seen.values())
