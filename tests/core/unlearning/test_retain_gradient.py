"""The retain gradient and its smoothing, the restricted step, and the saliency mask."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.batches import Batches, RetainBatch
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import ERASE, ForgetBatch
from unlearn_core.unlearning.optimizer import Change
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

from ..embeddings import embeddings
from ..tiny_models import CLASS_NAMES
from ..watching import StopError, Stopping

# Both losses have a gradient from the first step on, and the gradients conflict.
SETTINGS = UnlearnSettings(
    scope="xattn",
    objective="ascent",
    retain_objective="denoise",
    steps=6,
    batch_size=3,
    learning_rate=1e-3,
    warm_start=False,
    retain_weight=2.0,
    truncation=100.0,
)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def retain_gradients(unlearning: Unlearning, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The retain gradients that reach the optimizer, step by step."""
    gradients: list[Tensor] = []
    step = unlearning.optimizer.step

    def spy(*arguments: Any, restrict: bool) -> Change:
        gradients.append(flat(arguments[1]))
        return step(*arguments, restrict=restrict)

    monkeypatch.setattr(unlearning.optimizer, "step", spy)
    return gradients


def test_a_factor_of_zero_uses_the_whole_retain_set(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each picture once, with the gradient of one large batch."""
    settings = replace(SETTINGS, retain_batch_factor=0, steps=1)
    unlearning = Unlearning(sd_model, sets, settings)
    unlearning.watch.batches = copy.copy(unlearning.batches)  # its rows are not those of a step
    gradients = retain_gradients(unlearning, monkeypatch)
    batches: list[RetainBatch] = []
    draw = unlearning.batches.retain

    def retain(batch: ForgetBatch) -> Iterator[RetainBatch]:
        for part in draw(batch):
            batches.append(part)
            yield part

    monkeypatch.setattr(unlearning.batches, "retain", retain)
    fresh = sd_model.trainable_copy([n for n, _ in sd_model.named_parameters() if ".attn2." in n])
    list(unlearning)
    latents = torch.cat([part[0] for part in batches])
    assert torch.equal(latents, sets.retain[0].latents)
    parameters = [p for n, p in fresh.named_parameters() if ".attn2." in n]
    loss = sum(fresh.denoise_error(*part).flatten(1).mean(1).sum() for part in batches)
    assert isinstance(loss, Tensor)
    expected = flat(list(torch.autograd.grad(loss / len(latents), parameters)))
    tolerance = 1e-6 * expected.norm().item()
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("factor", [0, 1, 2, 3])
@pytest.mark.parametrize("further", [True, False])
def test_the_rows_of_a_step_are_known_before_they_are_drawn(
    sd_model: ModelHandle, sets: TrainingSets, factor: int, paired: bool, further: bool
) -> None:
    """The losses are divided by their number, so that no gradient must be divided later."""
    if further:  # pictures besides the parallels
        sets = replace(sets, retain=(*sets.retain, sets.paired[0].forget))
    settings = replace(SETTINGS, retain_batch_factor=factor, paired=paired)
    batches = Batches(sd_model, sets, settings)
    drawn = [len(latents) for latents, *_ in batches.retain(batches.forget())]
    assert batches.retain_rows == sum(drawn) > 0


@pytest.mark.parametrize("changed", [{"retain_batch_factor": 0}, {"saliency": 0.5}])
def test_a_step_over_many_batches_can_be_stopped(
    sd_model: ModelHandle, sets: TrainingSets, changed: dict[str, Any]
) -> None:
    """With hundreds of pictures, a step takes minutes."""
    settings = replace(SETTINGS, **changed, warm_start=False, prompt_protection=0.0)
    run = Unlearning(sd_model, sets, settings, Stopping())
    with pytest.raises(StopError):
        list(run)
    assert run.result().reports == ()
    assert not run.result().model.changed_tensors()


def test_pairs_share_rows_noise_and_timesteps(sd_model: ModelHandle, sets: TrainingSets) -> None:
    settings = replace(SETTINGS, paired=True, retain_batch_factor=2)
    batches = Unlearning(sd_model, sets, settings).batches
    forget = batches.forget()
    paired, free = batches.retain(forget)
    assert torch.equal(paired[0], forget.parallel_latents)
    assert torch.equal(
        embeddings(paired[1]).values, embeddings(forget.parallel_conditioning).values
    )
    assert torch.equal(paired[2], forget.noise)
    assert torch.equal(paired[3], forget.t)
    assert not torch.equal(free[2], forget.noise)


def test_timesteps_are_stratified_or_independent(sd_model: ModelHandle, sets: TrainingSets) -> None:
    """Stratified: one row in each of as many strata. Independent: any combination. Either way,
    every part of the schedule is equally frequent."""
    size, draws = 4, 400
    for stratified in (True, False):
        settings = replace(SETTINGS, batch_size=size, stratified_timesteps=stratified)
        batches = Unlearning(sd_model, sets, settings).batches
        times = torch.stack([batches.forget().t for _ in range(draws)])
        strata = times * size // 1000  # [draws, size]
        one_each = (strata.sort(1).values == torch.arange(size)).all(1).float().mean()
        assert one_each == 1 if stratified else one_each < 0.25
        shares = strata.flatten().bincount(minlength=size) / strata.numel()
        torch.testing.assert_close(shares, torch.full((size,), 1 / size), atol=0.05, rtol=0)


def test_the_moving_average_of_the_retain_gradient(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With negligible steps, the smoothed gradients are averages of those of a plain run."""
    negligible = replace(SETTINGS, learning_rate=1e-12)
    runs = []
    for decay in (0.0, 0.6):
        unlearning = Unlearning(sd_model, sets, replace(negligible, retain_ema=decay))
        gradients = retain_gradients(unlearning, monkeypatch)
        list(unlearning)
        runs.append(gradients)
    plain, smooth = runs
    for step in range(SETTINGS.steps):
        weights = torch.tensor([0.6 ** (step - i) for i in range(step + 1)], dtype=torch.double)
        expected = (weights[:, None] * torch.stack(plain[: step + 1])).sum(0) / weights.sum()
        torch.testing.assert_close(
            smooth[step], expected, rtol=1e-3, atol=1e-5 * expected.norm().item()
        )


def test_a_restricted_step_raises_neither_loss(sd_model: ModelHandle, sets: TrainingSets) -> None:
    settings = replace(SETTINGS, steps=30)
    free = list(Unlearning(sd_model, sets, replace(settings, restrict_step=False)))
    restricted = list(Unlearning(sd_model, sets, replace(settings, restrict_step=True)))
    assert any(r.forget_change > 0 or r.retain_change > 0 for r in free)
    assert not any(r.forget_change > 0 or r.retain_change > 0 for r in restricted)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_weights_outside_the_mask_stay_unchanged(
    sd_model: ModelHandle, sets: TrainingSets, share: float
) -> None:
    """Nearly all weights inside it change."""
    unlearning = Unlearning(sd_model, sets, replace(SETTINGS, saliency=share))
    before = flat(list(unlearning.parameters))
    list(unlearning)
    moved = flat(list(unlearning.parameters)) != before
    mask = flat(unlearning.mask).bool()
    assert mask.double().mean().item() == pytest.approx(share, abs=0.01)
    assert not moved[~mask].any()
    assert moved[mask].double().mean() > 0.95


def test_the_mask_selects_the_weights_with_the_largest_gradients(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    unlearning = Unlearning(sd_model, sets, replace(SETTINGS, saliency=0.3, steps=1))
    generator = unlearning.batches.generator.get_state()
    list(unlearning)
    batches = Unlearning(sd_model, sets, SETTINGS).batches
    batches.generator.set_state(generator)
    names = [n for n, _ in sd_model.named_parameters() if ".attn2." in n]
    fresh = sd_model.trainable_copy(names)
    parameters = [p for n, p in fresh.named_parameters() if ".attn2." in n]
    loss = torch.zeros(())
    for batch in batches.every_forget_row():
        error = fresh.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)
        loss = loss + error.flatten(1).mean(1).sum()
    magnitudes = flat(list(torch.autograd.grad(loss, parameters))).abs()
    mask = flat(unlearning.mask).bool()
    assert magnitudes[mask].min() >= magnitudes[~mask].max() * 0.999


def test_the_mask_excludes_weights_without_gradient(class_folder: Path, pairs: PromptPairs) -> None:
    """The embeddings of other classes have no gradient, whatever the share."""
    class_model = load_model(class_folder)
    sets = make_training_sets(class_model, pairs, GenerationSettings(steps=2))
    settings = replace(SETTINGS, scope="full", saliency=0.9999, steps=1)
    unlearning = Unlearning(class_model, sets, settings)
    list(unlearning)
    trained = zip(parameter_names(class_model, "full"), unlearning.mask, strict=True)
    (embedding,) = (mask for name, mask in trained if "class_embedding" in name)
    selected = embedding.bool().any(1)
    assert selected[CLASS_NAMES.index("cat")]
    assert selected.sum() == 1


def test_erasing_needs_the_empty_prompt(class_folder: Path, pairs: PromptPairs) -> None:
    class_model = load_model(class_folder)
    sets = make_training_sets(class_model, pairs, GenerationSettings(steps=2))
    for changes in ({"objective": ERASE}, {"empty_share": 0.1}):
        with pytest.raises(
            ValueError, match=r"empty prompt .* choose another objective than 'erase \(ESD\)'"
        ):
            Unlearning(class_model, sets, replace(SETTINGS, scope="full", **changes))


@pytest.mark.parametrize("paired", [True, False])
def test_a_share_of_the_retain_rows_has_an_empty_prompt(
    sd_model: ModelHandle, sets: TrainingSets, paired: bool
) -> None:
    settings = replace(SETTINGS, batch_size=5, paired=paired, empty_share=0.3)
    batches = Unlearning(sd_model, sets, settings).batches
    empty = embeddings(sd_model.encode_prompts([""])).values[0]
    empty_rows: list[bool] = []
    for _ in range(60):
        forget = batches.forget()
        parallel = embeddings(forget.parallel_conditioning).values.clone()
        for _, conditioning, noise, _ in batches.retain(forget):
            is_empty = [torch.equal(row, empty) for row in embeddings(conditioning).values]
            empty_rows += is_empty
            if paired:
                assert torch.equal(noise, forget.noise)
                others = torch.tensor(is_empty).logical_not()
                assert torch.equal(embeddings(conditioning).values[others], parallel[others])
        assert torch.equal(embeddings(forget.parallel_conditioning).values, parallel)
    assert 0.2 < sum(empty_rows) / len(empty_rows) < 0.4


def test_erasing_uses_the_null_class_as_the_empty_prompt(
    dit_folder: Path, pairs: PromptPairs
) -> None:
    model = load_model(dit_folder)
    assert embeddings(model.encode_prompts(["", "cat"])).values.tolist() == [len(CLASS_NAMES), 0]
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    run = Unlearning(model, sets, replace(SETTINGS, scope="full", steps=2, objective=ERASE))
    assert [math.isfinite(report.forget_loss) for report in run] == [True, True]
    assert run.result().model.changed_tensors()
