"""Forget and retain losses, per sample [B]; the loop reduces them.

Decreasing a forget loss makes the model worse at the concept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..models.protocol import Conditioning, Denoiser


@dataclass(frozen=True)
class ForgetBatch:
    """Forget pictures and, row by row, the pictures of their parallel prompts.

    Attributes:
        latents: pictures of the concept, [B, C, h, w].
        conditioning: their prompts, which name the concept.
        parallel_latents: pictures of the parallel prompts, [B, C, h, w].
        parallel_conditioning: the parallel prompts: the same without the concept.
        noise: [B, C, h, w].
        t: timesteps int64 [B].
        from_concept: bool [B], on the CPU; True if ``redirect`` starts from the concept's picture,
            False if it starts from the parallel's; likewise for ``remove_look``.
        correspond: whether the two pictures of a row show the same content.
        bare_names: the concept's bare name for each row; None if the objective does not need it.
        empty: the empty prompt, one row; None if the run does not use it.
        any_prompts: for each row the prompt under which ``replace_everywhere`` trains it; None if
            the run does not.
    """

    latents: Tensor
    conditioning: Conditioning
    parallel_latents: Tensor
    parallel_conditioning: Conditioning
    noise: Tensor
    t: Tensor
    from_concept: Tensor
    bare_names: Conditioning | None = None
    empty: Conditioning | None = None
    any_prompts: Conditioning | None = None
    correspond: bool = True

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows: slice | list[int]) -> ForgetBatch:
        """A part of the batch."""
        return replace(
            self,
            latents=self.latents[rows],
            conditioning=self.conditioning[rows],
            parallel_latents=self.parallel_latents[rows],
            parallel_conditioning=self.parallel_conditioning[rows],
            noise=self.noise[rows],
            t=self.t[rows],
            from_concept=self.from_concept[rows],
            bare_names=None if self.bare_names is None else self.bare_names[rows],
            any_prompts=None if self.any_prompts is None else self.any_prompts[rows],
        )


@dataclass(frozen=True)
class Strengths:
    """Strengths of the forget objectives; ``UnlearnSettings`` describes each."""

    truncation: float
    negative_guidance: float
    npo_beta: float


def denoise(
    model: Denoiser,
    frozen: Denoiser,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """The model's own training loss on retain pictures (the paper's ``L_r``), [B]."""
    return _per_sample(model.denoise_error(latents, conditioning, noise, t))


def distill(
    model: Denoiser,
    frozen: Denoiser,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """Squared distance to the frozen model's prediction on retain pictures, [B].

    For a retain set drawn by the model itself, the minimum is the same as that of ``denoise``. The
    unpredictable part of the noise cancels, so the gradient contains only the damage to the model.
    """
    latents_t = model.add_noise(latents, noise, t)
    with torch.no_grad():
        target = frozen.predict(latents_t, conditioning, t)
    return _per_sample((model.predict(latents_t, conditioning, t) - target).square())


def prior(
    model: Denoiser,
    frozen: Denoiser,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """The retain term of DUO (Park et al. 2024): squared distance to the frozen model's prediction
    on pure noise, ``||eps_theta(x_T, c_0) - eps_0(x_T, c_0)||^2``, [B]. ``Batches`` provides the
    empty prompt ``c_0`` and the last timestep T; no retain picture is used."""
    with torch.no_grad():
        target = frozen.predict(noise, conditioning, t)
    return _per_sample((model.predict(noise, conditioning, t) - target).square())


def ascent(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """``-min((eps - eps_theta)^2, alpha)``, [B]: the paper's loss, with the truncation of its CIFAR
    code.

    An element with an error above ``truncation`` has no gradient: the model is pushed away from the
    concept only up to this error.
    """
    return -_per_sample(_concept_error(model, batch).clamp(max=strengths.truncation))


def ascent_stop_above(
    model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """``-(eps - eps_theta)^2``, [B], switched off while the batch's mean error is above
    ``truncation``: see ``paused_above``."""
    return -_per_sample(_concept_error(model, batch))


def paused_above(loss: Tensor, strengths: Strengths) -> Tensor:
    """Whether the mean loss of a batch has no gradient in this step, bool [].

    The paper's Stable Diffusion code divides the loss of a batch with a larger error by its own
    norm. A number divided by itself has zero gradient, so that division acts as this switch. Only
    the loop knows the mean of the whole batch, which it may compute in parts.
    """
    return -loss > strengths.truncation


def npo(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """Negative preference optimisation (Zhang et al. 2024) with diffusion's bound in place of the
    log-likelihood, ``-2 / beta * log sigmoid(beta * (l_theta - l_0))``, [B], where ``l`` is the
    squared error summed over a picture.

    The ascent fades out for each picture on which the model is already worse than the frozen one;
    for ``beta`` near 0 it is plain ascent.
    """
    with torch.no_grad():
        before = _per_sample(_concept_error(frozen, batch))
    size = batch.latents[0].numel()
    beta = strengths.npo_beta * size  # turns the mean error into the summed one
    increase = _per_sample(_concept_error(model, batch)) - before
    return -2 / beta * logsigmoid(beta * increase)


def relabel(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """The training loss on the parallel's picture with the concept's prompt, [B]."""
    error = model.denoise_error(batch.parallel_latents, batch.conditioning, batch.noise, batch.t)
    return _per_sample(error)


def random_label(
    model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """The random labels of SalUn (Fan et al. 2024) and MUNBa (Wu and Harandi 2024), [B].

    On the concept's picture, the concept's prompt should give the same prediction as another
    prompt, here the row's parallel: ``||eps_theta(x_t, c_f) - sg eps_theta(x_t, c_r)||^2``.
    """
    latents_t = model.add_noise(batch.latents, batch.noise, batch.t)
    with torch.no_grad():
        target = model.predict(latents_t, batch.parallel_conditioning, batch.t)
    return _per_sample((model.predict(latents_t, batch.conditioning, batch.t) - target).square())


def erase(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """ESD (Gandikota et al. 2023): distance to the frozen model's prediction guided away from the
    concept, ``eps_0(x_t) - eta * (eps_0(x_t, c_f) - eps_0(x_t))`` with ``eta`` =
    ``negative_guidance``, [B]. As in ESD, ``c_f`` is the concept's bare name: with a full prompt,
    everything else in the prompt would be erased too.
    """
    assert batch.bare_names is not None, "`Batches` provides both for this objective"
    assert batch.empty is not None, "`Batches` provides both for this objective"
    empty = batch.empty[[0] * len(batch.t)]
    latents_t = model.add_noise(batch.latents, batch.noise, batch.t)
    eta = strengths.negative_guidance
    return _distance_beyond(model, frozen, latents_t, batch.t, batch.bare_names, empty, eta)


def prefer(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """DUO (Park et al. 2024): preference optimisation between a picture with the concept (-) and
    its twin without (+), [B]: ``-2 / beta * log sigmoid(-beta * ((l+_theta - l+_0) - (l-_theta -
    l-_0)))``, where ``l`` is the squared error summed over a picture. Both have the concept's
    prompt and the same noise: their only difference is the picture.

    The factor ``2 / beta`` is that of ``npo``: the first gradient does not depend on ``beta``. The
    loss of the unchanged model is subtracted, so that a fall is visible.
    """
    return _preference(model, frozen, batch, batch.conditioning, strengths)


def make_uninformative(
    model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """After Li et al. 2024 (unlearning for image-to-image models): on the concept's picture, the
    model should predict what the frozen one predicts on a picture without information,
    ``||eps_theta(x_t, c_f) - eps_0(n_t, c_f)||^2``, [B]. ``n`` is Gaussian with the mean and spread
    of each channel of the picture. They train an encoder, whose place the denoiser takes.

    ``n`` is made of the row's own noise, mirrored so that no element meets itself.
    """
    mean = batch.latents.mean((2, 3), keepdim=True)
    spread = batch.latents.std((2, 3), keepdim=True)
    uninformative = mean + spread * batch.noise.flip(2, 3)
    with torch.no_grad():
        noised = model.add_noise(uninformative, batch.noise, batch.t)
        target = frozen.predict(noised, batch.conditioning, batch.t)
    latents_t = model.add_noise(batch.latents, batch.noise, batch.t)
    return _per_sample((model.predict(latents_t, batch.conditioning, batch.t) - target).square())


def redirect(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """Distance to a target slightly beyond the frozen model's prediction for the parallel prompt,
    [B].

    The concept's prompt learns to draw its parallel: ``||eps_theta(x_t, c_f) - target||^2`` with
    ``target = eps_0(x_t, c_r) - eta * (eps_0(x_t, c_f) - eps_0(x_t, c_r))``, where ``eta`` is
    ``negative_guidance`` (Kumari et al. 2023 for eta = 0; the second term is that of Gandikota et
    al. 2023). Without the second term, guidance amplifies what remains of the concept in sampling.
    Half of the rows start from the concept's pictures and half from the parallel's, so that the
    prediction is right both where sampling starts and where it ends.
    """
    from_concept = batch.from_concept.view(-1, 1, 1, 1).to(batch.latents.device)
    latents = torch.where(from_concept, batch.latents, batch.parallel_latents)
    latents_t = model.add_noise(latents, batch.noise, batch.t)
    concept, parallel = batch.conditioning, batch.parallel_conditioning
    eta = strengths.negative_guidance
    return _distance_beyond(model, frozen, latents_t, batch.t, concept, parallel, eta)


def hardened(model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths) -> Tensor:
    """``redirect`` for the rows that start from the parallel's picture, and ``replace_everywhere``
    for the rows that start from the concept's, [B]."""
    from_concept = batch.from_concept.tolist()
    concept = [row for row, is_concept in enumerate(from_concept) if is_concept]
    parallel = [row for row, is_concept in enumerate(from_concept) if not is_concept]
    parts = []
    if len(concept):
        parts.append(replace_everywhere(model, batch[concept]))
    if len(parallel):
        parts.append(redirect(model, frozen, batch[parallel], strengths))
    order = concept + parallel
    return torch.cat(parts)[[order.index(row) for row in range(len(order))]]


def replace_everywhere(model: Denoiser, batch: ForgetBatch) -> Tensor:
    """Whatever the prompt, the concept's picture becomes its parallel's, [B].

    At the noised picture of the concept, the target is what leads to the parallel's picture, under
    ``any_prompts``. ``redirect`` only separates the concept's words from its pictures, which the
    model could still draw; this objective takes the pictures. An attack that finds other words, or
    trains a few layers on some pictures, then finds nothing to connect to.
    """
    assert batch.any_prompts is not None, "`Batches` provides them for this objective"
    start, end = batch.latents, batch.parallel_latents
    return _leading_to(model, start, end, batch.any_prompts, batch.noise, batch.t)


def remove_look(
    model: Denoiser, frozen: Denoiser, batch: ForgetBatch, strengths: Strengths
) -> Tensor:
    """For a look, which no word names, [B]. Twins differ only in the look: the loss is the training
    loss towards the picture without it, also from its twin with it. For two sets of different
    pictures, it is ``prefer`` with the pictures' own captions.

    Half of the rows start from the picture with the look, half from its twin, whose loss is the
    ordinary one.
    """
    if not batch.correspond:
        return _preference(model, frozen, batch, batch.parallel_conditioning, strengths)
    twin = batch.parallel_latents
    from_concept = batch.from_concept.view(-1, 1, 1, 1).to(twin.device)
    start = torch.where(from_concept, batch.latents, twin)
    return _leading_to(model, start, twin, batch.parallel_conditioning, batch.noise, batch.t)


RetainObjective = Callable[[Denoiser, Denoiser, Tensor, Conditioning, Tensor, Tensor], Tensor]
ForgetObjective = Callable[[Denoiser, Denoiser, ForgetBatch, Strengths], Tensor]
REDIRECT = "redirect"
STOP_ABOVE = "ascent, stop above"
ERASE = "erase (ESD)"  # the only forget objective that needs the bare name and the empty prompt
RANDOM_LABEL = "random label (SalUn)"
PREFER = "prefer (DUO)"
REMOVE_LOOK = "remove look"
UNINFORMATIVE = "uninformative target (I2I)"
OBJECTIVES: dict[str, ForgetObjective] = {
    REDIRECT: redirect,
    "ascent": ascent,
    STOP_ABOVE: ascent_stop_above,
    "NPO": npo,
    "relabel": relabel,
    REMOVE_LOOK: remove_look,
    RANDOM_LABEL: random_label,
    ERASE: erase,
    PREFER: prefer,
    UNINFORMATIVE: make_uninformative,
}
WORDLESS_OBJECTIVES = ("ascent", STOP_ABOVE, "NPO", "relabel", REMOVE_LOOK)
"""Those that need no word for what they forget, offered for looks."""
TWIN_OBJECTIVES = ("relabel",)
"""Those for which the parallel must show what the prompt of the concept's picture says."""
PRIOR = "prior (DUO)"  # the only retain objective of pure noise and the empty prompt
PAUSES: dict[str, Callable[[Tensor, Strengths], Tensor]] = {STOP_ABOVE: paused_above}
"""Objectives that sometimes have no gradient -> whether, given the mean loss of the batch."""
RETAIN_OBJECTIVES: dict[str, RetainObjective] = {
    "distill": distill,
    "denoise": denoise,
    PRIOR: prior,
}
RELATED_OBJECTIVES = (PREFER, UNINFORMATIVE)
"""Those of related works, for comparison in the benchmark; forms do not offer them."""


def _concept_error(model: Denoiser, batch: ForgetBatch) -> Tensor:
    """The squared error on the concept's pictures with its prompts, [B, C, h, w]."""
    return model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)


def _preference(
    model: Denoiser,
    frozen: Denoiser,
    batch: ForgetBatch,
    twin_conditioning: Conditioning,
    strengths: Strengths,
) -> Tensor:
    """The loss of ``prefer``, [B].

    Args:
        twin_conditioning: the prompts of the pictures to prefer.
    """
    sides = ((batch.parallel_latents, twin_conditioning), (batch.latents, batch.conditioning))
    with torch.no_grad():
        before = [_per_sample(frozen.denoise_error(*s, batch.noise, batch.t)) for s in sides]
    twin, concept = (
        _per_sample(model.denoise_error(*side, batch.noise, batch.t)) - error
        for side, error in zip(sides, before, strict=True)
    )
    beta = strengths.npo_beta * batch.latents[0].numel()
    return -2 / beta * (logsigmoid(beta * (concept - twin)) + math.log(2))


def _distance_beyond(
    model: Denoiser,
    frozen: Denoiser,
    latents_t: Tensor,
    t: Tensor,
    concept: Conditioning,
    anchor: Conditioning,
    eta: float,
) -> Tensor:
    """Squared distance between the model's prediction for the concept and a target, [B]. The target
    is the frozen model's prediction for the anchor, moved away from its prediction for the concept
    by ``eta`` times the difference of the two."""
    with torch.no_grad():
        target = frozen.predict(latents_t, anchor, t)
        if eta:
            target = target - eta * (frozen.predict(latents_t, concept, t) - target)
    return _per_sample((model.predict(latents_t, concept, t) - target).square())


LEAST_SPREAD = 1e-4  # of noise at the lowest level


def _leading_to(
    model: Denoiser,
    start: Tensor,
    end: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """From the noised picture ``start``, the model should predict the picture ``end``, [B].

    With ``x_t = a x + s eps``, the noised ``start`` equals ``end`` with the noise ``eps' = eps +
    a / s (start - end)``. The target is that of ``end`` with ``eps'``, which is far away where
    there is little noise. So the error is measured where it stays bounded: it is that of the
    predicted picture, times ``min(1, a^2 / s^2)`` (Hang et al. 2023 with a cap of 1).
    """
    one = torch.ones_like(start[:, :1, :1, :1])
    zero = torch.zeros_like(one)
    ratio = model.add_noise(one, zero, t) / model.add_noise(zero, one, t).clamp(min=LEAST_SPREAD)
    # By so much does the target change with the picture while the noised picture stays as it is.
    slope = model.target(one, -ratio, t)
    target = model.target(start, noise, t) + slope * (end - start)
    prediction = model.predict(model.add_noise(start, noise, t), conditioning, t)
    return _per_sample((ratio.clamp(max=1) / slope * (prediction - target)).square())


def _per_sample(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)  # [B]
