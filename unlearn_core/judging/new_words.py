"""Attacks that train the embeddings of new words: textual inversion and soft tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.plurals import count_of
from ..models.counted import Counted
from ..models.protocol import ModelHandle
from .curves import STEPS, Attempt, Target
from .gradient_steps import Loss, at, gradient_steps

PLACEHOLDERS = ("sks", "ohwx", "phol", "olis")
"""Rare words of a single token; the first is customary since DreamBooth."""
WORD_RATE = 5e-3


def with_words(model: ModelHandle, embeddings: Tensor) -> ModelHandle:
    """The model in which the first placeholders have these embeddings, [K, E]."""
    for word, embedding in zip(PLACEHOLDERS, embeddings, strict=False):
        model = model.with_word(word, embedding)
    return model


def prefixed(count: int, prompts: Sequence[str]) -> list[str]:
    """The prompts with ``count`` placeholders before each."""
    words = " ".join(PLACEHOLDERS[:count])
    return [f"{words} {prompt}" for prompt in prompts]


def word_loss(
    model: ModelHandle, embeddings: Tensor, latents: Tensor, captions: Sequence[str], target: Target
) -> Loss:
    """The denoising error of pictures whose captions contain the placeholders.

    Args:
        embeddings: of the placeholders, [K, E].
        latents: of the pictures, [N, C, h, w].
        captions: of the pictures, N.
    """

    def loss(rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        learner = with_words(model, embeddings)
        conditioning = learner.encode_prompts([captions[int(i)] for i in rows])
        part = latents[rows].to(model.device)
        counted = Counted(learner, target.progress)
        return counted.denoise_error(part, conditioning, noise, t).mean()

    return loss


def learned(
    efforts: Sequence[int],
    start: Tensor,
    latents: Tensor,
    captions: Sequence[str],
    target: Target,
) -> Iterator[tuple[int, ModelHandle]]:
    """The model with the trained words, after each of these numbers of steps.

    Args:
        start: the embeddings before training, [K, E].
        captions: as in ``word_loss``.
    """
    embeddings = start.clone().requires_grad_()
    model = target.model.trainable_copy(())  # needs less memory in the backward pass
    loss = word_loss(model, embeddings, latents, captions, target)
    steps = gradient_steps(model, loss, [embeddings], len(latents), WORD_RATE, target)
    for step in at(efforts, steps):
        yield step, with_words(model, embeddings.detach().clone())


@dataclass(frozen=True)
class Inversion:
    """Textual inversion (Gal et al. 2023): new words in the concept's place are trained to
    reproduce its pictures. Each begins with the embedding of the concept's name.

    Attributes:
        vectors: number of new words.
        pictures: number of training pictures.
    """

    name: str
    vectors: int = 1
    pictures: int = 10
    efforts: tuple[int, ...] = (60, 200, 600)
    unit: str = STEPS

    def attempts(self, target: Target) -> Iterator[Attempt]:
        concept = target.pairs.concept
        words = " ".join(PLACEHOLDERS[: self.vectors])
        start = target.model.word_embedding(concept.name).repeat(self.vectors, 1)
        pairs, latents = target.examples(self.pictures)
        captions = [concept.replaced_in(pair.forget, words) for pair in pairs]
        prompts = [concept.replaced_in(pair.forget, words) for pair in target.tests]
        for step, model in learned(self.efforts, start, latents, captions, target):
            yield target.attempt(model, prompts, step, self._label(step))

    def _label(self, step: int) -> str:
        return (
            f"after {count_of(step, 'step')} of training {count_of(self.vectors, 'new word')} on "
            f"{count_of(self.pictures, 'picture')}"
        )


@dataclass(frozen=True)
class SoftTokens:
    """A search for free embeddings that bring the concept back when they precede its prompt, as in
    Receler and AdvUnlearn. They begin with the embeddings of random words.

    Attributes:
        tokens: number of embeddings.
        pictures: number of pictures of the concept whose denoising error is minimized.
    """

    name: str
    tokens: int = 4
    pictures: int = 10
    efforts: tuple[int, ...] = (30, 100)
    unit: str = STEPS

    def attempts(self, target: Target) -> Iterator[Attempt]:
        start = random_words(target, self.tokens)
        pairs, latents = target.examples(self.pictures)
        captions = prefixed(self.tokens, [pair.forget for pair in pairs])
        prompts = prefixed(self.tokens, [pair.forget for pair in target.tests])
        for step, model in learned(self.efforts, start, latents, captions, target):
            label = f"after a search of {count_of(step, 'step')} for {self.tokens} free embeddings"
            yield target.attempt(model, prompts, step, label)


def random_words(target: Target, count: int) -> Tensor:
    """The embeddings of random words, [count, E]."""
    embeddings = target.model.vocabulary().embeddings
    generator = torch.Generator().manual_seed(target.seed)
    return embeddings[torch.randperm(len(embeddings), generator=generator)[:count]]
