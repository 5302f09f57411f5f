"""The losses against their formulas, on a real tiny model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.protocol import Conditioning, ModelHandle
from unlearn_core.unlearning.batches import Batches
from unlearn_core.unlearning.objectives import (
    OBJECTIVES,
    PRIOR,
    ForgetBatch,
    ForgetObjective,
    Strengths,
    ascent,
    ascent_stop_above,
    denoise,
    distill,
    erase,
    make_uninformative,
    npo,
    paused_above,
    prefer,
    prior,
    random_label,
    redirect,
    relabel,
    remove_look,
)
from unlearn_core.unlearning.settings import UnlearnSettings

from ..embeddings import embeddings

SIZE = 4


@pytest.fixture
def batch(sd_model: ModelHandle) -> ForgetBatch:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(3, SIZE, *sd_model.latent_shape, generator=generator)
    return ForgetBatch(
        latents=draws[0],
        conditioning=sd_model.encode_prompts(["a cat", "a cat indoors"] * 2),
        parallel_latents=draws[1],
        parallel_conditioning=sd_model.encode_prompts(["a dog", "a dog indoors"] * 2),
        noise=draws[2],
        t=torch.tensor([0, 300, 600, 999]),
        from_concept=torch.tensor([True, False, False, True]),
        bare_names=sd_model.encode_prompts(["cat"] * SIZE),
        empty=sd_model.encode_prompts([""]),
    )


@pytest.fixture
def changed(sd_model: ModelHandle) -> ModelHandle:
    """A trainable copy that differs slightly from the frozen model."""
    copy = sd_model.trainable_copy([name for name, _ in sd_model.named_parameters()])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in copy.named_parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return copy


def squared_error(model: ModelHandle, batch: ForgetBatch) -> Tensor:
    return model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)


def forget_loss(
    objective: ForgetObjective,
    model: ModelHandle,
    frozen: ModelHandle,
    batch: ForgetBatch,
    truncation: float = 1.0,
    negative_guidance: float = 0.5,
    npo_beta: float = 0.1,
) -> Tensor:
    return objective(model, frozen, batch, Strengths(truncation, negative_guidance, npo_beta))


def test_distill_is_the_distance_to_the_frozen_prediction(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    inputs = (batch.latents, batch.conditioning, batch.noise, batch.t)
    assert distill(sd_model, sd_model, *inputs).max() == 0
    x_t = sd_model.add_noise(batch.latents, batch.noise, batch.t)
    prediction = changed.predict(x_t, batch.conditioning, batch.t)
    expected = (prediction - sd_model.predict(x_t, batch.conditioning, batch.t)).square()
    torch.testing.assert_close(distill(changed, sd_model, *inputs), expected.mean((1, 2, 3)))


def test_denoise_is_the_training_loss_of_each_picture(
    sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    losses = denoise(sd_model, sd_model, batch.latents, batch.conditioning, batch.noise, batch.t)
    assert losses.shape == (SIZE,)
    torch.testing.assert_close(losses, squared_error(sd_model, batch).mean((1, 2, 3)))


@pytest.mark.parametrize("truncation", [0.05, 1.0, 1e9])
def test_ascent_is_the_negative_truncated_error(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch, truncation: float
) -> None:
    error = squared_error(changed, batch)
    expected = -torch.minimum(error, torch.tensor(truncation)).mean((1, 2, 3))
    torch.testing.assert_close(forget_loss(ascent, changed, sd_model, batch, truncation), expected)


def test_errors_above_the_truncation_have_no_gradient(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    parameters = [p for _, p in changed.named_parameters()]
    below = squared_error(changed, batch).min().item() / 2

    def gradient_norm(truncation: float) -> float:
        loss = forget_loss(ascent, changed, sd_model, batch, truncation).mean()
        gradients = torch.autograd.grad(loss, parameters)
        return sum(g.square().sum().item() for g in gradients)

    assert gradient_norm(below) == 0
    assert gradient_norm(1e9) > 0


@pytest.mark.parametrize("eta", [0.0, 0.5, 2.0])
def test_redirect_is_the_distance_to_the_frozen_prediction_of_the_parallel(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch, eta: float
) -> None:
    """Row by row, each from its own starting picture."""
    losses = forget_loss(redirect, changed, sd_model, batch, negative_guidance=eta)
    assert losses.shape == (SIZE,)
    for row in range(SIZE):
        latents = batch.latents if batch.from_concept[row] else batch.parallel_latents
        one = slice(row, row + 1)
        x_t = sd_model.add_noise(latents[one], batch.noise[one], batch.t[one])
        parallel = sd_model.predict(x_t, batch.parallel_conditioning[one], batch.t[one])
        concept = sd_model.predict(x_t, batch.conditioning[one], batch.t[one])
        target = (1 + eta) * parallel - eta * concept
        prediction = changed.predict(x_t, batch.conditioning[one], batch.t[one])
        torch.testing.assert_close(losses[row], (prediction - target).square().mean())


def test_redirect_is_zero_for_equal_prompts_and_models(
    sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    same = replace(batch, parallel_conditioning=batch.conditioning)
    assert forget_loss(redirect, sd_model, sd_model, same, 1.0).max() < 1e-10
    assert forget_loss(redirect, sd_model, sd_model, batch, 1.0).min() > 0


def test_redirect_trains_only_the_model_and_not_the_frozen_one(
    sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    names = [name for name, _ in sd_model.named_parameters()]
    trained, frozen = sd_model.trainable_copy(names), sd_model.trainable_copy(names)
    loss = forget_loss(redirect, trained, frozen, batch, 1.0).sum()
    ours, theirs = ([p for _, p in m.named_parameters()] for m in (trained, frozen))
    gradients = torch.autograd.grad(loss, ours + theirs, allow_unused=True)
    assert all(g is None for g in gradients[len(ours) :])
    assert sum(g.square().sum().item() for g in gradients if g is not None) > 0


@pytest.mark.parametrize("truncation", [0.1, 1e9])
def test_stop_above_is_ascent_with_pauses(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch, truncation: float
) -> None:
    error = squared_error(changed, batch).mean((1, 2, 3))
    losses = forget_loss(ascent_stop_above, changed, sd_model, batch, truncation)
    torch.testing.assert_close(losses, -error)
    pause = paused_above(losses.mean(), Strengths(truncation, 0.0, 0.0))
    assert pause.item() is (error.mean().item() > truncation)


@pytest.mark.parametrize("beta", [1e-4, 0.1, 10.0])
def test_npo_agrees_with_its_formula_and_is_not_negative(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch, beta: float
) -> None:
    size = batch.latents[0].numel()
    after, before = (
        squared_error(m, batch).flatten(1).double().sum(1) for m in (changed, sd_model)
    )
    # The published form, with the likelihood ratio of Gaussians with these errors.
    ratio = torch.exp(-(after - before))
    expected = 2 / beta * torch.log1p(ratio**beta) / size
    losses = forget_loss(npo, changed, sd_model, batch, npo_beta=beta)
    finite = expected.isfinite()
    torch.testing.assert_close(losses[finite].double(), expected[finite], rtol=1e-3, atol=1e-6)
    assert losses.min() >= 0


def test_npo_with_a_small_beta_has_the_gradient_of_ascent(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    parameters = [p for _, p in changed.named_parameters()]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    small = gradient(forget_loss(npo, changed, sd_model, batch, npo_beta=1e-7).mean())
    plain = gradient(-squared_error(changed, batch).mean())
    torch.testing.assert_close(small, plain, rtol=1e-3, atol=1e-6)


def test_relabel_is_the_training_loss_of_the_parallels_picture(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    inputs = (batch.parallel_latents, batch.conditioning, batch.noise, batch.t)
    expected = changed.denoise_error(*inputs).mean((1, 2, 3))
    torch.testing.assert_close(forget_loss(relabel, changed, sd_model, batch), expected)


def test_random_label_is_the_distance_to_the_parallels_prediction(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    x_t = sd_model.add_noise(batch.latents, batch.noise, batch.t)
    prediction = changed.predict(x_t, batch.conditioning, batch.t)
    label = changed.predict(x_t, batch.parallel_conditioning, batch.t)
    losses = forget_loss(random_label, changed, sd_model, batch)
    torch.testing.assert_close(losses, (prediction - label).square().mean((1, 2, 3)))
    # The label is the current model's prediction, and no gradient flows into it.
    weights = [p for _, p in changed.named_parameters()]
    for w in weights:
        w.requires_grad_(True)
    with torch.enable_grad():
        loss = forget_loss(random_label, changed, sd_model, batch).sum()
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        fixed = changed.predict(x_t, batch.conditioning, batch.t) - label.detach()
        expected = torch.autograd.grad(
            fixed.square().mean((1, 2, 3)).sum(), weights, materialize_grads=True
        )
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_erase_is_the_distance_to_guidance_away_from_the_concept(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch, eta: float
) -> None:
    x_t = sd_model.add_noise(batch.latents, batch.noise, batch.t)
    free = sd_model.predict(x_t, sd_model.encode_prompts([""] * SIZE), batch.t)
    names = sd_model.encode_prompts(["cat"] * SIZE)
    concept = sd_model.predict(x_t, names, batch.t)
    prediction = changed.predict(x_t, names, batch.t)
    expected = (prediction - free + eta * (concept - free)).square().mean((1, 2, 3))
    losses = forget_loss(erase, changed, sd_model, batch, negative_guidance=eta)
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_row_depends_on_another(
    objective: str, changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    loss = OBJECTIVES[objective]
    before = forget_loss(loss, changed, sd_model, batch)
    latents = torch.cat([batch.latents[:2], batch.latents[2:] + 1])
    parallels = torch.cat([batch.parallel_latents[:2], batch.parallel_latents[2:] + 1])
    other = replace(batch, latents=latents, parallel_latents=parallels)
    after = forget_loss(loss, changed, sd_model, other)
    torch.testing.assert_close(after[:2], before[:2])
    assert not torch.allclose(after[2], before[2])


def test_the_preference_is_that_of_its_formula(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    """DUO's loss from the four squared errors, with both pictures under the concept's prompt."""
    beta = 0.1 * batch.latents[0].numel()
    differences = [
        squared_error(changed, each) - squared_error(sd_model, each)
        for each in (replace(batch, latents=batch.parallel_latents), batch)
    ]
    twin, concept = (difference.mean((1, 2, 3)) for difference in differences)
    preferred = 1 / (1 + torch.exp(-beta * (concept - twin)))
    expected = -2 / beta * torch.log(preferred / 0.5)
    losses = forget_loss(prefer, changed, sd_model, batch)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)
    same = replace(batch, parallel_latents=batch.latents)
    indifferent = forget_loss(prefer, changed, sd_model, same)
    assert indifferent.abs().max() < 1e-6


def test_the_uninformative_target_is_that_of_a_picture_of_noise(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    wide = replace(batch, latents=5 + 3 * batch.latents)
    mean = wide.latents.mean((2, 3), keepdim=True)
    spread = wide.latents.std((2, 3), keepdim=True)
    picture = mean + spread * wide.noise.flip(2, 3)
    target = sd_model.predict(
        sd_model.add_noise(picture, wide.noise, wide.t), wide.conditioning, wide.t
    )
    start = sd_model.add_noise(wide.latents, wide.noise, wide.t)
    expected = (changed.predict(start, wide.conditioning, wide.t) - target).square().mean((1, 2, 3))
    torch.testing.assert_close(forget_loss(make_uninformative, changed, sd_model, wide), expected)


def test_the_prior_depends_on_pure_noise_alone(
    changed: ModelHandle, sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    last, empty = torch.full((SIZE,), 999), sd_model.encode_prompts([""] * SIZE)
    losses = prior(changed, sd_model, batch.latents, empty, batch.noise, last)
    predictions = [m.predict(batch.noise, empty, last) for m in (changed, sd_model)]
    torch.testing.assert_close(losses, (predictions[0] - predictions[1]).square().mean((1, 2, 3)))
    other = prior(changed, sd_model, batch.latents + 1, empty, batch.noise, last)
    assert torch.equal(other, losses)
    assert prior(sd_model, sd_model, batch.latents, empty, batch.noise, last).max() == 0


def test_batches_of_the_prior_have_the_empty_prompt_and_the_last_timestep(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    settings = UnlearnSettings(retain_objective=PRIOR, batch_size=3)
    batches = Batches(sd_model, sets, settings)
    (part,) = batches.retain(batches.forget())
    _, conditioning, _, t = part
    assert t.tolist() == [sd_model.times(torch.ones(1)).item()] * 3
    empty = embeddings(sd_model.encode_prompts([""])).values
    assert torch.equal(embeddings(conditioning).values, empty.expand(3, -1, -1))


def test_remove_look_leads_to_the_twin(
    sd_model: ModelHandle, changed: ModelHandle, batch: ForgetBatch
) -> None:
    """From Stable Diffusion's own schedule: the noise that leads from x_t to the twin."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    alphas = (1 - betas).cumprod(0)
    loss = forget_loss(remove_look, changed, sd_model, batch)
    for row in range(SIZE):
        alpha = alphas[batch.t[row]]
        signal, spread = alpha.sqrt().item(), (1 - alpha).sqrt().item()
        start = batch.latents if batch.from_concept[row] else batch.parallel_latents
        x_t = signal * start[row] + spread * batch.noise[row]
        leads_to_twin = (x_t - signal * batch.parallel_latents[row]) / spread
        output = changed.predict(x_t[None], batch.parallel_conditioning[[row]], batch.t[[row]])
        weight = min(1.0, (spread / signal) ** 2)
        expected = weight * (output[0] - leads_to_twin).square().mean()
        torch.testing.assert_close(loss[row], expected, rtol=2e-3, atol=1e-5)


def test_remove_look_is_least_for_a_model_that_sees_the_twin(
    sd_model: ModelHandle, batch: ForgetBatch
) -> None:
    """A denoiser that knows the twin has no loss, wherever a row starts; one that knows the picture
    with the look has one in every row."""

    @dataclass
    class Knows:
        picture: Tensor

        def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
            return sd_model.add_noise(latents, noise, t)

        def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
            one, zero = torch.ones_like(latents_t), torch.zeros_like(latents_t)
            signal, spread = self.add_noise(one, zero, t), self.add_noise(zero, one, t)
            return (latents_t - signal * self.picture) / spread

        def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
            return noise

        def denoise_error(
            self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
        ) -> Tensor:
            return (self.predict(self.add_noise(latents, noise, t), conditioning, t) - noise) ** 2

    def loss(picture: Tensor) -> Tensor:
        model = Knows(picture)
        return remove_look(model, model, batch, Strengths(1.0, 0.0, 0.1))

    torch.testing.assert_close(loss(batch.parallel_latents), torch.zeros(SIZE), atol=1e-4, rtol=0)
    assert (loss(batch.latents) > 0.001).all()


def test_remove_look_prefers_the_set_without_it_under_its_own_captions(
    sd_model: ModelHandle, changed: ModelHandle, batch: ForgetBatch
) -> None:
    """The logistic loss of Bradley and Terry, on the change of both errors."""
    loss = forget_loss(remove_look, changed, sd_model, replace(batch, correspond=False))
    size = batch.latents[0].numel()
    for row in range(SIZE):
        changes = []
        for latents, conditioning in (
            (batch.parallel_latents, batch.parallel_conditioning),
            (batch.latents, batch.conditioning),
        ):
            here = latents[[row]], conditioning[[row]], batch.noise[[row]], batch.t[[row]]
            after, before = (m.denoise_error(*here).sum().item() for m in (changed, sd_model))
            changes.append(after - before)
        without, with_look = changes
        beta = 0.1  # of ``forget_loss``, for summed errors
        odds = math.exp(-beta * (with_look - without))
        expected = 2 / beta * (math.log1p(odds) - math.log(2)) / size  # the mean over a picture
        assert loss[row].item() == pytest.approx(expected, rel=1e-3)
