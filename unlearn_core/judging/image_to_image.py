"""Image to image: a picture of the concept is noised in part, and denoised under a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dataset.drawing import decode_pictures, draw_latents
from ..models.denoiser import seeded_noise
from ..models.guidance import Predict, guided
from ..models.protocol import ModelHandle
from .curves import NOISE, Attempt, Target

NOISE_SEED = 3_000_000  # differs from the seeds of all pictures


@dataclass(frozen=True)
class ImageToImage:
    """The model before unlearning draws pictures of the concept, which are noised and denoised.

    Attributes:
        neutral: denoise under the prompt without the concept; otherwise under its own prompt.
    """

    name: str
    neutral: bool
    efforts: tuple[int, ...] = (30, 50, 70)
    unit: str = NOISE

    def attempts(self, target: Target) -> Iterator[Attempt]:
        concept, generation = target.pairs.concept, target.settings.generation
        own = [pair.forget for pair in target.tests]
        prompts = [concept.replaced_in(p, "") for p in own] if self.neutral else own
        target.model.check_prompts(prompts)
        latents = draw_latents(
            target.base, own, generation, cache=target.cache, progress=target.progress
        )
        for effort in self.efforts:
            rows = torch.arange(len(latents)).split(generation.batch_size)
            denoised = [self._denoised(target, latents, prompts, effort, part) for part in rows]
            pictures = decode_pictures(target.model, torch.cat(denoised), target.progress)
            yield Attempt(effort, self._label(effort), tuple(prompts), pictures)

    def _denoised(
        self, target: Target, latents: Tensor, prompts: Sequence[str], effort: int, rows: Tensor
    ) -> Tensor:
        model, generation = target.model, target.settings.generation
        noise = seeded_noise([NOISE_SEED + int(i) for i in rows], model.latent_shape)
        levels = torch.linspace(effort / 100, 0, generation.steps + 1)[:-1]
        predict = guidance(model, [prompts[int(i)] for i in rows], generation.guidance_scale)
        passes = len(rows) * generation.steps * model.passes_per_step(generation.guidance_scale)
        target.progress.count_passes(passes)
        start, noise = latents[rows].to(model.device), noise.to(model.device)
        return denoise(model, predict, start, noise, levels, target).float().cpu()

    def _label(self, effort: int) -> str:
        prompt = "a neutral prompt" if self.neutral else "the concept's prompt"
        return f"a picture of it with {effort} % noise, denoised under {prompt}"


def guidance(model: ModelHandle, prompts: Sequence[str], scale: float) -> Predict:
    """The prediction for these prompts, with guidance if the model's sampler uses it."""
    prompt = model.encode_prompts(prompts)
    if model.passes_per_step(scale) == 1:
        return lambda x_t, t: model.predict(x_t, prompt, t)
    return guided(model.predict, prompt, model.encode_prompts([""])[[0] * len(prompts)], scale)


@torch.no_grad()
def denoise(
    model: ModelHandle,
    predict: Predict,
    latents: Tensor,
    noise: Tensor,
    levels: Tensor,
    target: Target,
) -> Tensor:
    """Deterministic sampling (DDIM, Song et al. 2021) of latents [B, C, h, w] that are noised to
    the first of the levels; from the last level it jumps to the picture.

    Every family's process is ``x_t = a x_0 + s eps``, whose factors ``add_noise`` gives.
    """
    times = model.times(levels)

    def noised(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return model.add_noise(x_0, eps, t.expand(len(x_0)).to(model.device))

    x_t, x_0 = noised(latents, noise, times[0]), latents
    one, zero = torch.ones_like(latents), torch.zeros_like(latents)
    for i, t in enumerate(times):
        output = predict(x_t, t.expand(len(x_t)).to(model.device))
        signal, spread = noised(one, zero, t), noised(zero, one, t)
        x_0, eps = parts(model.info.prediction, output, x_t, signal, spread)
        if i + 1 < len(times):
            x_t = noised(x_0, eps, times[i + 1])
        target.progress.check()
    return x_0


def parts(
    prediction: str, output: Tensor, x_t: Tensor, signal: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """x_0 and eps of ``x_t = signal x_0 + spread eps``, from a denoiser's output."""
    if prediction == "epsilon":
        return (x_t - spread * output) / signal, output
    if prediction == "v_prediction":
        return signal * x_t - spread * output, spread * x_t + signal * output
    if prediction == "flow":  # signal + spread = 1
        return x_t - spread * output, x_t + signal * output
    return output, (x_t - signal * output) / spread
