"""Probes that train: they try to bring the concept back from a few pictures, by a LoRA or by the
embedding of one new word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..foundation.progress import Progress
from ..models.counted import Counted
from ..models.layers import LORA
from ..models.protocol import ModelHandle
from ..models.weights import is_lora
from ..unlearning.results import UnlearnedModel
from ..unlearning.scopes import parameter_names

RANK = 4
BATCH = 8  # pictures per step
PLACEHOLDER = "sks"  # a rare token, customary since DreamBooth
LORA_RATE, WORD_RATE = 1e-3, 5e-3


def relearn(
    unlearned: UnlearnedModel,
    latents: Tensor,
    prompts: Sequence[str],
    *,
    steps: int,
    seed: int,
    at_once: int = BATCH,
    progress: Progress | None = None,
) -> ModelHandle:
    """The model with a small LoRA trained on pictures of the concept.

    Args:
        latents: of the pictures, [N, C, h, w].
        prompts: N captions that name the concept.
        at_once: pictures per forward and backward pass; fewer need less memory.

    Raises:
        UnsupportedError: the model has no layers for LoRA, or peft is not installed.
    """
    names = parameter_names(unlearned.base, LORA)
    model = unlearned.model.fixed_copy()
    learner = model.lora_copy(names, RANK, float(RANK), seed)
    parameters = [p for name, p in learner.named_parameters() if is_lora(name)]
    conditioning = learner.encode_prompts(prompts)

    def loss(rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        part = latents[rows].to(model.device)
        return counted.denoise_error(part, conditioning[rows], noise, t).mean()

    counted = Counted(learner, progress or Progress())
    _train(model, loss, parameters, len(latents), LORA_RATE, steps, seed, at_once, progress)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return learner


def invert(
    model: ModelHandle,
    latents: Tensor,
    prompts: Sequence[str],
    start: str,
    *,
    steps: int,
    seed: int,
    at_once: int = BATCH,
    progress: Progress | None = None,
) -> ModelHandle:
    """Textual inversion (Gal et al. 2023): the model with an embedding of ``PLACEHOLDER`` that is
    trained to reproduce the pictures.

    Args:
        latents: of pictures of the concept, [N, C, h, w].
        prompts: N captions with the placeholder in the concept's place.
        start: the word whose embedding initializes the placeholder's.
        at_once: as in ``relearn``.

    Raises:
        UnsupportedError: the model has no text encoder, or the placeholder is not a single token.
    """
    embedding = model.word_embedding(start).clone().requires_grad_()
    model = model.trainable_copy(())  # needs less memory in the backward pass

    def loss(rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        learner = model.with_word(PLACEHOLDER, embedding)
        conditioning = learner.encode_prompts([prompts[int(i)] for i in rows])
        part = latents[rows].to(model.device)
        counted = Counted(learner, progress or Progress())
        return counted.denoise_error(part, conditioning, noise, t).mean()

    _train(model, loss, [embedding], len(latents), WORD_RATE, steps, seed, at_once, progress)
    return model.with_word(PLACEHOLDER, embedding.detach())


def _train(
    model: ModelHandle,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    parameters: Sequence[Tensor],
    total: int,
    learning_rate: float,
    steps: int,
    seed: int,
    at_once: int,
    progress: Progress | None,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters, learning_rate)
    batch = min(BATCH, total)
    for _ in range(steps):
        rows = torch.randperm(total, generator=generator)[:batch]
        noise = torch.randn(batch, *model.latent_shape, generator=generator)
        t = model.times(torch.rand(batch, generator=generator))
        for part in torch.arange(batch).split(at_once):
            part_noise, part_t = noise[part].to(model.device), t[part].to(model.device)
            with torch.enable_grad():
                value = loss(rows[part], part_noise, part_t) * (len(part) / batch)
                torch.autograd.backward(value, inputs=list(parameters))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if progress is not None:
            progress.check()
