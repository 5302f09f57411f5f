"""Attacks that train the weights: on a few pictures of the concept, or on unrelated pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..foundation.plurals import count_of
from ..models.counted import Counted
from ..models.layers import FULL, LORA
from ..models.protocol import ModelHandle
from ..unlearning.scopes import trainable
from ..unlearning.settings import UnlearnSettings
from .curves import STEPS, Attempt, Target
from .gradient_steps import at, gradient_steps

RANK = 4
LORA_RATE, FULL_RATE = 1e-3, 1e-4


def fine_tuned(
    efforts: Sequence[int],
    latents: Tensor,
    captions: Sequence[str],
    target: Target,
    *,
    full: bool,
) -> Iterator[tuple[int, ModelHandle]]:
    """The model with the trained weights, after each of these numbers of steps. It is the same
    handle each time.

    Args:
        latents: of the pictures, [N, C, h, w].
        captions: of the pictures, N.
        full: train all weights of the denoiser; otherwise a LoRA of rank ``RANK``.

    Raises:
        UnsupportedError: the model has no such layers, or peft is not installed.
    """
    scope = FULL if full else LORA
    settings = UnlearnSettings(
        scope=scope, lora_rank=RANK, lora_alpha=float(RANK), seed=target.seed
    )
    learner, parameters = trainable(target.model.fixed_copy(), settings)
    counted = Counted(learner, target.progress)
    conditioning = learner.encode_prompts(captions)

    def loss(rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        part = latents[rows].to(learner.device)
        return counted.denoise_error(part, conditioning[rows], noise, t).mean()

    rate = FULL_RATE if full else LORA_RATE
    steps = gradient_steps(learner, loss, parameters, len(latents), rate, target)
    for step in at(efforts, steps):
        yield step, learner


@dataclass(frozen=True)
class FineTuning:
    """Training with the model's own loss.

    Attributes:
        pictures: number of training pictures.
        full: as in ``fine_tuned``.
        unrelated: train on pictures without the concept.
    """

    name: str
    pictures: int
    full: bool = False
    unrelated: bool = False
    efforts: tuple[int, ...] = (10, 60, 200)
    unit: str = STEPS

    def attempts(self, target: Target) -> Iterator[Attempt]:
        pairs, latents = target.examples(self.pictures, retain=self.unrelated)
        captions = [pair.retain if self.unrelated else pair.forget for pair in pairs]
        prompts = [pair.forget for pair in target.tests]
        for step, model in fine_tuned(self.efforts, latents, captions, target, full=self.full):
            yield target.attempt(model, prompts, step, self._label(step))

    def _label(self, step: int) -> str:
        training = "full fine-tuning" if self.full else "training"
        kind = "unrelated picture" if self.unrelated else "picture"
        return f"after {count_of(step, 'step')} of {training} on {count_of(self.pictures, kind)}"
