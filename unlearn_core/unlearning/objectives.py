"""Forget and retain losses, per sample [B]; the loop reduces them.

A forget loss is written so that decreasing it makes the model worse at the concept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..models.protocol import Conditioning, ModelHandle


@dataclass(frozen=True)
class ForgetBatch:
    """Forget pictures and, row by row, the pictures of their parallel prompts.

    Attributes:
        latents: of pictures that show the concept, [B, C, h, w].
        conditioning: the prompts that ask for it.
        parallel_latents: of the parallel prompts' pictures, [B, C, h, w].
        parallel_conditioning: the same prompts without the concept.
        noise: [B, C, h, w].
        t: timesteps int64 [B].
        from_concept: bool [B]; whether ``redirect`` starts from the concept's picture or from the
            parallel's.
        alone: the concept's bare name, row by row; None where no objective asks for it.
        nothing: the empty prompt, one row; likewise.
    """

    latents: Tensor
    conditioning: Conditioning
    parallel_latents: Tensor
    parallel_conditioning: Conditioning
    noise: Tensor
    t: Tensor
    from_concept: Tensor
    alone: Conditioning | None = None
    nothing: Conditioning | None = None


@dataclass(frozen=True)
class Strengths:
    """How far the objectives go; ``UnlearnSettings`` says what each means."""

    truncation: float
    negative_guidance: float
    npo_beta: float


def denoise(
    model: ModelHandle,
    frozen: ModelHandle,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """The model's own training loss on retain pictures (the paper's ``L_r``), [B]."""
    return _per_sample(model.denoise_error(latents, conditioning, noise, t))


def distill(
    model: ModelHandle,
    frozen: ModelHandle,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """How far the prediction has moved from the frozen model's on retain pictures, [B].

    The minimum is the same as ``denoise``'s for a model that drew its own retain set, but the
    noise that no model can predict has cancelled: what is left of the gradient is damage alone.
    """
    latents_t = model.add_noise(latents, noise, t)
    with torch.no_grad():
        target = frozen.predict(latents_t, conditioning, t)
    return _per_sample((model.predict(latents_t, conditioning, t) - target).square())


def ascent(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """``-min((eps - eps_theta)^2, alpha)`` (the paper, with its CIFAR code's truncation), [B].

    An element whose error has passed ``truncation`` has no gradient: the model is pushed away from
    the concept only until it is that wrong.
    """
    return -_per_sample(_concept_error(model, batch).clamp(max=strengths.truncation))


def ascent_stop_above(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """``-(eps - eps_theta)^2``, switched off while the batch's mean is above ``truncation``, [B].

    The paper's Stable Diffusion code divides such a batch's loss by its own norm; what it computes
    is this switch, for the gradient of a number divided by itself is zero.
    """
    error = _per_sample(_concept_error(model, batch))
    return -torch.where(error.detach().mean() > strengths.truncation, error.detach(), error)


def npo(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """Negative preference optimisation (Zhang et al. 2024) with diffusion's bound in place of the
    log-likelihood, ``-2 / beta * log sigmoid(beta * (l_theta - l_0))``, [B], where ``l`` is the
    squared error summed over a picture.

    Ascent that fades for every picture at which the model is already worse than the frozen one;
    for ``beta`` near 0 it is plain ascent.
    """
    with torch.no_grad():
        before = _per_sample(_concept_error(frozen, batch))
    size = batch.latents[0].numel()
    beta = strengths.npo_beta * size  # the summed error, while the loss stays a mean
    worse = _per_sample(_concept_error(model, batch)) - before
    return -2 / beta * logsigmoid(beta * worse)


def relabel(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """The training loss for the parallel's picture under the concept's prompt, [B]."""
    error = model.denoise_error(batch.parallel_latents, batch.conditioning, batch.noise, batch.t)
    return _per_sample(error)


def random_label(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """SalUn's random labels (Fan et al. 2024), and MUNBa's (Wu and Harandi 2024), [B].

    On the concept's picture the concept's prompt is to predict what another prompt does, the
    parallel, which differs from row to row: ``||eps_theta(x_t, c_f) - sg eps_theta(x_t, c_r)||^2``.
    """
    latents_t = model.add_noise(batch.latents, batch.noise, batch.t)
    with torch.no_grad():
        target = model.predict(latents_t, batch.parallel_conditioning, batch.t)
    return _per_sample((model.predict(latents_t, batch.conditioning, batch.t) - target).square())


def erase(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """ESD (Gandikota et al. 2023): distance to the frozen model's guidance away from the concept,
    ``eps_0(x_t) - eta * (eps_0(x_t, c_f) - eps_0(x_t))`` with ``eta`` = ``negative_guidance``, [B].
    As there, ``c_f`` is the concept's bare name: under a whole prompt, all that the prompt says
    would be erased with it.
    """
    assert batch.alone is not None, "the loop gives both to this objective"
    assert batch.nothing is not None, "the loop gives both to this objective"
    nothing = batch.nothing[[0] * len(batch.t)]
    latents_t = model.add_noise(batch.latents, batch.noise, batch.t)
    eta = strengths.negative_guidance
    return _away(model, frozen, latents_t, batch.t, batch.alone, nothing, eta)


def redirect(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """Distance to what the frozen model predicts for the parallel prompt, and a little beyond, [B].

    The concept's prompt comes to mean its parallel: ``||eps_theta(x_t, c_f) - target||^2`` with
    ``target = eps_0(x_t, c_r) - eta * (eps_0(x_t, c_f) - eps_0(x_t, c_r))``, where ``eta`` is
    ``negative_guidance`` (Kumari et al. 2023 for eta = 0; the second term is that of Gandikota et
    al. 2023). Without it, what is left of the concept is amplified by guidance when sampling.
    Half of the rows start from the concept's pictures and half from the parallel's, so that the
    answer is right both where sampling starts and where it ends up.
    """
    from_concept = batch.from_concept.view(-1, 1, 1, 1)
    latents = torch.where(from_concept, batch.latents, batch.parallel_latents)
    latents_t = model.add_noise(latents, batch.noise, batch.t)
    concept, parallel = batch.conditioning, batch.parallel_conditioning
    eta = strengths.negative_guidance
    return _away(model, frozen, latents_t, batch.t, concept, parallel, eta)


RetainObjective = Callable[[ModelHandle, ModelHandle, Tensor, Conditioning, Tensor, Tensor], Tensor]
ForgetObjective = Callable[[ModelHandle, ModelHandle, ForgetBatch, Strengths], Tensor]
ERASE = "erase (ESD)"  # the one that needs the bare name and the empty prompt
RANDOM_LABEL = "random label (SalUn)"
OBJECTIVES: dict[str, ForgetObjective] = {
    "redirect": redirect,
    "ascent": ascent,
    "ascent, stop above": ascent_stop_above,
    "NPO": npo,
    "relabel": relabel,
    RANDOM_LABEL: random_label,
    ERASE: erase,
}
RETAIN_OBJECTIVES: dict[str, RetainObjective] = {"distill": distill, "denoise": denoise}


def _concept_error(model: ModelHandle, batch: ForgetBatch) -> Tensor:
    """The squared error on the concept's pictures under its prompts, [B, C, h, w]."""
    return model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)


def _away(
    model: ModelHandle,
    frozen: ModelHandle,
    latents_t: Tensor,
    t: Tensor,
    concept: Conditioning,
    anchor: Conditioning,
    eta: float,
) -> Tensor:
    """Distance of the concept's prediction to the frozen anchor's, ``eta`` beyond it, [B]."""
    with torch.no_grad():
        wanted = frozen.predict(latents_t, anchor, t)
        unwanted = frozen.predict(latents_t, concept, t)
        target = wanted - eta * (unwanted - wanted)
    return _per_sample((model.predict(latents_t, concept, t) - target).square())


def _per_sample(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)  # [B]
