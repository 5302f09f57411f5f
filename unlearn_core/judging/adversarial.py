"""An adversarial prompt: a search for words before the prompt that bring the concept back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..foundation.plurals import count_of
from .curves import STEPS, Attempt, Target
from .gradient_steps import BATCH, gradient_steps
from .new_words import prefixed, random_words, word_loss

SEARCH_RATE = 5e-3


@dataclass(frozen=True)
class Words:
    """A search over real words, after the idea of P4D and UnlearnDiffAtk: gradient steps on free
    embeddings, with the gradient taken at the nearest words (Wen et al. 2023). Of all words on the
    way, those with the lowest denoising error on the concept's pictures are the result, a prompt
    that anybody can type.

    Attributes:
        tokens: number of words.
        pictures: number of pictures of the concept.
    """

    name: str
    tokens: int = 4
    pictures: int = 10
    efforts: tuple[int, ...] = (30, 100)
    unit: str = STEPS

    def attempts(self, target: Target) -> Iterator[Attempt]:
        vocabulary = target.model.vocabulary()
        table = normalize(vocabulary.embeddings, dim=1)
        soft = random_words(target, self.tokens).clone().requires_grad_()
        pairs, latents = target.examples(self.pictures)
        captions = prefixed(self.tokens, [pair.forget for pair in pairs])
        model = target.model.trainable_copy(())  # needs less memory in the backward pass

        def nearest() -> Tensor:
            return (normalize(soft.detach(), dim=1) @ table.T).argmax(1)

        def loss(rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
            words = vocabulary.embeddings[nearest()]
            straight_through = soft + (words - soft).detach()
            return word_loss(model, straight_through, latents, captions, target)(rows, noise, t)

        generator = torch.Generator().manual_seed(target.seed)
        batch = min(BATCH, len(latents))
        noise = torch.randn(batch, *model.latent_shape, generator=generator)
        levels = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch

        @torch.no_grad()
        def error(words: tuple[int, ...]) -> float:
            """On the same pictures and noise for all words."""
            embeddings = vocabulary.embeddings[list(words)]
            of_words = word_loss(model, embeddings, latents, captions, target)
            t = model.times(levels).to(model.device)
            return of_words(torch.arange(batch), noise.to(model.device), t).item()

        errors: dict[tuple[int, ...], float] = {}
        steps = gradient_steps(model, loss, [soft], len(latents), SEARCH_RATE, target)
        for step in steps:
            words = tuple(nearest().tolist())
            if words not in errors:
                errors[words] = error(words)
            if step in self.efforts:
                best = min(errors, key=errors.__getitem__)
                found = " ".join(vocabulary.words[i] for i in best)
                prompts = [f"{found} {pair.forget}" for pair in target.tests]
                label = f"after a search of {count_of(step, 'step')} for words: {found!r}"
                yield target.attempt(target.model, prompts, step, label)
            if step >= max(self.efforts):
                return
