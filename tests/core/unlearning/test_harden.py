"""``harden``: its objective against closed forms, its batches, and its effect on the settings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.layers import AUTO, FULL, LOW_RANK, XATTN
from unlearn_core.models.protocol import Conditioning, ModelHandle
from unlearn_core.unlearning import watch
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.batches import Batches
from unlearn_core.unlearning.estimate import sizes
from unlearn_core.unlearning.fitting import TooLargeError, choose
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import (
    ForgetBatch,
    Strengths,
    hardened,
    redirect,
    replace_everywhere,
)
from unlearn_core.unlearning.scopes import smaller_scope
from unlearn_core.unlearning.settings import UnlearnSettings

SIZE = 4
STRENGTHS = Strengths(truncation=1.0, negative_guidance=0.25, npo_beta=0.01)
SETTINGS = UnlearnSettings(harden=True, steps=3, batch_size=4, learning_rate=1e-4)
PROMPTS = {  # class-conditional models have only class names
    True: (["cat"] * 4, ["dog", "house", "dog", "house"]),
    False: (["a cat", "a cat indoors"] * 2, ["a dog", "a dog indoors"] * 2),
}


class Answering:
    """A model with a given answer; everything else is that of another model."""

    def __init__(self, model: ModelHandle, answer: Tensor) -> None:
        self.model, self.answer = model, answer
        self.add_noise, self.target = model.add_noise, model.target

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        return self.answer

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        raise AssertionError("this objective compares predictions itself")


@pytest.fixture
def batch(sd_model: ModelHandle) -> ForgetBatch:
    return batch_of(sd_model, ["a cat", "a cat indoors"] * 2, ["a dog", "a dog indoors"] * 2)


def batch_of(model: ModelHandle, forget: list[str], retain: list[str]) -> ForgetBatch:
    draws = torch.randn(3, SIZE, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return ForgetBatch(
        latents=draws[0],
        conditioning=model.encode_prompts(forget),
        parallel_latents=draws[1],
        parallel_conditioning=model.encode_prompts(retain),
        noise=draws[2],
        t=model.times(torch.tensor([0.02, 0.3, 0.6, 0.95])),
        from_concept=torch.tensor([True, False, False, True]),
        any_prompts=model.encode_prompts(retain[::-1]),
    )


def signal_to_noise(model: ModelHandle, t: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of picture and noise in ``add_noise``, [B, 1, 1, 1] each."""
    one, zero = torch.ones(SIZE, 1, 1, 1), torch.zeros(SIZE, 1, 1, 1)
    return model.add_noise(one, zero, t), model.add_noise(zero, one, t)


def test_its_minimum_leads_from_the_concept_to_the_parallel(model: ModelHandle) -> None:
    """Of every family: the model's own target for the parallel's picture, with the noise that makes
    the same noisy picture, has no loss."""
    class_names = model.info.family in ("class-conditional", "dit")
    batch = batch_of(model, *PROMPTS[class_names])
    signal, spread = signal_to_noise(model, batch.t)
    noise = batch.noise + signal / spread * (batch.latents - batch.parallel_latents)
    noisy = [
        model.add_noise(latents, each, batch.t)
        for latents, each in ((batch.latents, batch.noise), (batch.parallel_latents, noise))
    ]
    torch.testing.assert_close(*noisy, rtol=1e-4, atol=1e-4)
    perfect = Answering(model, model.target(batch.parallel_latents, noise, batch.t))
    losses = replace_everywhere(perfect, batch)
    assert losses.shape == (SIZE,)
    torch.testing.assert_close(losses, torch.zeros(SIZE), rtol=0, atol=1e-6)


def test_its_error_is_that_of_the_picture_and_bounded(model: ModelHandle) -> None:
    """A model that predicts the concept's own picture errs by the distance of the two pictures,
    times ``min(signal / noise, 1)`` in power, whatever the family predicts."""
    class_names = model.info.family in ("class-conditional", "dit")
    batch = batch_of(model, *PROMPTS[class_names])
    unmoved = Answering(model, model.target(batch.latents, batch.noise, batch.t))
    signal, spread = signal_to_noise(model, batch.t)
    weight = (signal / spread).square().clamp(max=1).flatten()
    expected = weight * (batch.latents - batch.parallel_latents).square().mean((1, 2, 3))
    torch.testing.assert_close(replace_everywhere(unmoved, batch), expected, rtol=1e-3, atol=1e-6)


def test_each_row_has_one_of_the_two_losses(sd_model: ModelHandle, batch: ForgetBatch) -> None:
    losses = hardened(sd_model, sd_model, batch, STRENGTHS)
    replaced = replace_everywhere(sd_model, batch)
    redirected = redirect(sd_model, sd_model, batch, STRENGTHS)
    torch.testing.assert_close(losses, torch.where(batch.from_concept, replaced, redirected))


@pytest.mark.parametrize("from_concept", [True, False])
def test_a_batch_of_one_kind(sd_model: ModelHandle, batch: ForgetBatch, from_concept: bool) -> None:
    """Small parts of a batch may lack one of the kinds."""
    alike = replace(batch, from_concept=torch.full((SIZE,), from_concept))
    assert hardened(sd_model, sd_model, alike, STRENGTHS).shape == (SIZE,)


def test_the_prompts_are_those_of_the_pair_of_others_and_the_empty_one(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    batches = Batches(sd_model, sets, SETTINGS)
    (part,) = sets.paired
    known = torch.cat([part.forget.conditioning.values, part.retain.conditioning.values])  # pyright: ignore[reportAttributeAccessIssue]
    empty = sd_model.encode_prompts([""]).values  # pyright: ignore[reportAttributeAccessIssue]
    own = strange = nothing = 0
    for _ in range(50):
        batch = batches.forget()
        assert batch.any_prompts is not None
        for row, prompt in zip(batch.conditioning.values, batch.any_prompts.values, strict=True):  # pyright: ignore[reportAttributeAccessIssue]
            own += torch.equal(row, prompt)
            nothing += torch.equal(empty[0], prompt)
            is_known = (known == prompt).flatten(1).all(1).any()
            strange += not is_known and not torch.equal(empty[0], prompt)
    assert strange == 0
    assert 0.4 < own / 200 < 0.6
    assert 0.05 < nothing / 200 < 0.18


def test_without_it_the_batches_stay_as_they_were(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    batch = Batches(sd_model, sets, replace(SETTINGS, harden=False)).forget()
    assert batch.any_prompts is None
    assert batch.empty is None


def test_it_trains_all_weights_unless_a_scope_is_chosen(sd_model: ModelHandle) -> None:
    assert resolved(UnlearnSettings(harden=True), sd_model).scope == FULL
    assert resolved(UnlearnSettings(harden=True, scope=XATTN), sd_model).scope == XATTN
    assert resolved(UnlearnSettings(scope=AUTO), sd_model).scope == XATTN


def test_other_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="harden needs the objective 'redirect', got 'ascent'"):
        UnlearnSettings(harden=True, objective="ascent")


@pytest.mark.parametrize("scope", LOW_RANK)
def test_low_rank_scopes_are_refused(scope: str) -> None:
    with pytest.raises(ValueError, match=rf"harden needs the weights themselves.* got '{scope}'"):
        UnlearnSettings(harden=True, scope=scope)


def test_a_run_that_ends_on_the_way_keeps_a_state_within_the_usual_limit(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps may do more damage than a result: here 3 times the usual limit, from step 3 on."""
    run = Unlearning(sd_model, sets, replace(SETTINGS, steps=6, scope=XATTN))
    error = run.watch.reference.error
    monkeypatch.setattr(
        watch.Watch, "_distance", lambda _: 3 * error if len(run.reports) >= 3 else 0.0
    )
    monkeypatch.setattr(watch, "is_suspicious", lambda *_: True)
    steps = iter(run)
    for _ in range(5):
        next(steps)
    run.end_early()
    assert [alarm.back_to for alarm in run.alarms] == [2]
    assert len(run.reports) == 2


def test_the_prompts_of_its_rows_are_part_of_the_estimate(sd_model: ModelHandle) -> None:
    settings = resolved(SETTINGS, sd_model)
    rows = [sizes(sd_model, replace(settings, harden=on), "a cat").check for on in (True, False)]
    picture = 4 * math.prod(sd_model.latent_shape)
    prompt = sd_model.encode_prompts(["a cat"]).values.nbytes  # pyright: ignore[reportAttributeAccessIssue]
    assert rows == [watch.CHECK_ROWS * (n * prompt + 5 * picture) for n in (4, 3)]


def test_a_run_moves_the_concepts_pictures(sd_model: ModelHandle, sets: TrainingSets) -> None:
    """The loss on the concept's pictures falls, also by weights outside cross-attention."""
    settings = replace(SETTINGS, steps=60, learning_rate=2e-3, scope=FULL, warm_start=False)
    run = Unlearning(sd_model, sets, settings)
    batch = Batches(sd_model, sets, settings).forget()
    before = replace_everywhere(sd_model, batch).mean()
    for _ in run:
        pass
    after = replace_everywhere(run.result().model, batch).mean()
    assert after < 0.95 * before
    convolutions = [
        dict(each.named_parameters())["conv_in.weight"] for each in (run.model, sd_model)
    ]
    assert not torch.equal(*convolutions)


def test_no_low_rank_scope_takes_its_place(sd_model: ModelHandle) -> None:
    """Low-rank layers do not harden, so too little memory is refused, with the cure."""
    settings = resolved(replace(SETTINGS, scope=AUTO), sd_model)
    assert smaller_scope(sd_model, settings) is None
    assert smaller_scope(sd_model, replace(settings, harden=False)) is not None
    measured = sizes(sd_model, settings, "a cat")
    with pytest.raises(TooLargeError, match="can be used; switch harden off, or choose smaller"):
        choose(measured, settings, free=0)
