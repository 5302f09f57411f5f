"""The loop, on a real tiny model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
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
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.batches import RetainBatch
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import ERASE, OBJECTIVES, ForgetBatch
from unlearn_core.unlearning.optimizer import Change
from unlearn_core.unlearning.results import StepReport, UnlearnedModel
from unlearn_core.unlearning.rules import Gram
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

from ..embeddings import embeddings

# Untrained weights draw latents far from unit variance, so a lower truncation could cut them all.
SETTINGS = UnlearnSettings(
    scope="full",
    objective="ascent",
    retain_objective="denoise",
    steps=4,
    batch_size=3,
    learning_rate=1e-3,
    retain_weight=2.0,
    truncation=100.0,
    warm_start=False,
)


def run(model: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> UnlearnedModel:
    unlearning = Unlearning(model, sets, settings)
    for _ in unlearning:
        pass
    return unlearning.result()


def weights(model: ModelHandle) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether all tensors are equal bit by bit."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def record_batches(
    unlearning: Unlearning, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[ForgetBatch], list[RetainBatch]]:
    """Lists of the batches that the steps draw from now on."""
    unlearning.watch.batches = copy.copy(unlearning.batches)  # its rows are not those of a step
    forget: list[ForgetBatch] = []
    retain: list[RetainBatch] = []
    draw_forget, draw_retain = unlearning.batches.forget, unlearning.batches.retain

    def forget_batch() -> ForgetBatch:
        forget.append(draw_forget())
        return forget[-1]

    def retain_batches(batch: ForgetBatch) -> Iterator[RetainBatch]:
        for part in draw_retain(batch):
            retain.append(part)
            yield part

    monkeypatch.setattr(unlearning.batches, "forget", forget_batch)
    monkeypatch.setattr(unlearning.batches, "retain", retain_batches)
    return forget, retain


def test_a_report_for_every_step(sd_model: ModelHandle, sets: TrainingSets) -> None:
    unlearning = Unlearning(sd_model, sets, SETTINGS)
    assert len(unlearning) == 4
    reports = list(unlearning)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    for report in reports:
        assert report.forget_loss < 0 < report.retain_loss
        assert -1 <= report.cosine <= 1
        assert report.conflict is (report.cosine < 0)
        assert report.grad_forget_norm > 0
        assert report.grad_retain_norm > 0
        assert report.seconds > 0
    result = unlearning.result()
    assert result.reports == tuple(reports)
    assert (result.base, result.pairs) == (sd_model, sets.pairs)
    assert result.settings == resolved(SETTINGS, sd_model)
    assert list(unlearning) == []


@pytest.mark.parametrize("settings", [SETTINGS, UnlearnSettings(batch_size=3)])
def test_every_family_unlearns(
    model: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings
) -> None:
    """With the paper's settings and with the defaults; scope full without cross-attention."""
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    before = weights(model)
    if model.info.family in ("class-conditional", "dit"):
        settings = replace(settings, scope="full")
    result = run(model, sets, replace(settings, steps=2))
    assert len(result.reports) == 2
    assert result.model.changed_tensors()
    assert same(weights(model), before)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_family_supports_every_objective(
    model: ModelHandle, pairs: PromptPairs, objective: str
) -> None:
    """Also with a share of empty prompts, where supported; no step raises either loss."""
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    has_empty_prompt = model.info.family != "class-conditional"
    settings = UnlearnSettings(
        objective=objective,
        steps=2,
        batch_size=2,
        truncation=100.0,
        warm_start=False,
        empty_share=0.5 if has_empty_prompt else 0.0,
    )
    if objective == ERASE and not has_empty_prompt:
        with pytest.raises(ValueError, match="empty prompt"):
            run(model, sets, settings)
        return
    result = run(model, sets, settings)
    assert result.model.changed_tensors()
    for report in result.reports:
        assert report.forget_change <= 1e-6 * abs(report.forget_loss)
        assert report.retain_change <= 1e-6 * abs(report.retain_loss)


def test_a_seed_determines_every_bit(sd_model: ModelHandle, sets: TrainingSets) -> None:
    torch.manual_seed(1)
    first = run(sd_model, sets, SETTINGS)
    torch.manual_seed(2)  # the global generator has no effect
    second = run(sd_model, sets, SETTINGS)
    other = run(sd_model, sets, replace(SETTINGS, seed=1))
    assert same(weights(first.model), weights(second.model))
    assert not same(weights(first.model), weights(other.model))
    numbers = [
        [replace(report, seconds=0.0) for report in result.reports] for result in (first, second)
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("scope", ["full", "xattn", "noxattn", "lora"])
def test_every_bit_of_the_base_model_stays(
    sd_model: ModelHandle, sets: TrainingSets, scope: str
) -> None:
    before = weights(sd_model)
    (part,) = sets.paired
    latents = part.forget.latents.clone(), part.retain.latents.clone()
    result = run(sd_model, sets, replace(SETTINGS, scope=scope))
    assert same(weights(sd_model), before)
    assert sd_model.changed_tensors() == {}
    assert torch.equal(latents[0], part.forget.latents)
    assert torch.equal(latents[1], part.retain.latents)
    assert not any(p.requires_grad for _, p in sd_model.named_parameters())
    assert not any(p.requires_grad for _, p in result.model.named_parameters())
    assert all(p.grad is None for _, p in result.model.named_parameters())


def test_xattn_changes_only_cross_attention(sd_model: ModelHandle, sets: TrainingSets) -> None:
    result = run(sd_model, sets, replace(SETTINGS, scope="xattn"))
    assert set(result.model.changed_tensors()) == set(parameter_names(sd_model, "xattn"))
    assert all(".attn2." in name for name in result.model.changed_tensors())


def test_lora_changes_only_the_attention_layers(sd_model: ModelHandle, sets: TrainingSets) -> None:
    result = run(sd_model, sets, replace(SETTINGS, scope="lora", lora_rank=2))
    names = parameter_names(sd_model, "lora")
    assert set(result.model.changed_tensors()) == set(names)
    base = dict(sd_model.named_parameters())
    for name, value in result.model.changed_tensors().items():
        delta = (value - base[name]).flatten(1)
        assert torch.linalg.matrix_rank(delta, rtol=1e-3) <= 2, name


def test_an_interrupted_run_returns_the_model_of_the_last_finished_step(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    unlearning = Unlearning(sd_model, sets, SETTINGS)
    for report in unlearning:
        if report.step == 2:
            break
    result = unlearning.result()
    assert len(result.reports) == 2
    # The same two steps as an uninterrupted run.
    whole = Unlearning(sd_model, sets, SETTINGS)
    list(itertools.islice(whole, 2))
    assert same(weights(result.model), weights(whole.model))


def test_an_interrupted_run_continues_without_a_difference(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    unlearning = Unlearning(sd_model, sets, SETTINGS)
    next(iter(unlearning))
    assert [report.step for report in unlearning] == [2, 3, 4]
    assert same(weights(unlearning.model), weights(run(sd_model, sets, SETTINGS).model))


def test_the_result_is_available_at_any_time(sd_model: ModelHandle, sets: TrainingSets) -> None:
    unlearning = Unlearning(sd_model, sets, SETTINGS)
    assert unlearning.result().reports == ()
    assert unlearning.result().model.changed_tensors() == {}
    for step, _ in enumerate(unlearning, start=1):
        assert len(unlearning.result().reports) == step
    assert same(weights(unlearning.result().model), weights(run(sd_model, sets, SETTINGS).model))


def test_a_run_works_where_gradients_are_switched_off(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """A user interface may call it inside ``no_grad``."""
    with torch.no_grad():
        result = run(sd_model, sets, SETTINGS)
    assert same(weights(result.model), weights(run(sd_model, sets, SETTINGS).model))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_forget_loss_falls(sd_model: ModelHandle, sets: TrainingSets, objective: str) -> None:
    """Measured on one fixed batch before and after, because the batches of a run differ."""
    settings = replace(
        SETTINGS, steps=10, objective=objective, retain_weight=0.0, learning_rate=1e-4
    )
    unlearning = Unlearning(sd_model, sets, settings)
    batch = unlearning.batches.forget()

    def loss() -> float:
        with torch.no_grad():
            losses = OBJECTIVES[objective](unlearning.model, sd_model, batch, settings.strengths)
            return losses.mean().item()

    before = loss()
    list(unlearning)
    assert loss() < before - 1e-3 * abs(before)


def test_the_retain_loss_falls_with_a_large_weight(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    settings = replace(
        SETTINGS, steps=40, retain_weight=1e4, method="GradDiff", retain_batch_factor=0
    )
    reports = run(sd_model, sets, settings).reports
    first, last = (sum(r.retain_loss for r in part) for part in (reports[:15], reports[-15:]))
    assert last < first


def test_the_methods_differ_only_when_the_losses_conflict(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    runs: dict[str, tuple[StepReport, ...]] = {}
    trained: dict[str, dict[str, Tensor]] = {}
    for method in ("restricted gradient", "GradDiff"):
        result = run(sd_model, sets, replace(SETTINGS, method=method))
        runs[method], trained[method] = result.reports, weights(result.model)
    assert any(report.conflict for report in runs["restricted gradient"])
    assert not same(trained["restricted gradient"], trained["GradDiff"])
    first = [
        replace(reports[0], seconds=0.0, forget_change=0.0, retain_change=0.0)
        for reports in runs.values()
    ]
    assert first[0] == first[1]  # the same batch and weights


@pytest.mark.parametrize("scope", ["full", "xattn"])
@pytest.mark.parametrize("method", ["restricted gradient", "GradDiff"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_first_step_follows_a_separately_computed_direction(
    sd_model: ModelHandle,
    sets: TrainingSets,
    monkeypatch: pytest.MonkeyPatch,
    scope: str,
    method: str,
    batch_size: int,
) -> None:
    """Theorem 4 over the trained parameters, computed with torch.autograd and flat vectors on the
    loop's batches: neither loss contributes to the other's gradient."""
    settings = replace(SETTINGS, scope=scope, method=method, batch_size=batch_size)
    unlearning = Unlearning(sd_model, sets, settings)
    forget, retain = record_batches(unlearning, monkeypatch)
    directions: list[Tensor] = []
    step = unlearning.optimizer.step

    def spy(
        grad_forget: Sequence[Tensor],
        grad_retain: Sequence[Tensor],
        products: Gram,
        coefficients: tuple[float, float],
        *rest: float,
        restrict: bool,
    ) -> Change:
        a, b = coefficients
        directions.extend(a * f + b * r for f, r in zip(grad_forget, grad_retain, strict=True))
        return step(grad_forget, grad_retain, products, coefficients, *rest, restrict=restrict)

    monkeypatch.setattr(unlearning.optimizer, "step", spy)
    report = next(iter(unlearning))

    names = parameter_names(sd_model, scope)
    fresh = sd_model.trainable_copy(names)
    own = dict(fresh.named_parameters())
    parameters = [own[name] for name in names]

    def gradient(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten().double()
                for p, g in zip(parameters, grads, strict=True)
            ]
        )

    batch = forget[0]
    error = fresh.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)
    loss_f = -error.clamp(max=settings.truncation).mean()
    g_f = gradient(loss_f)
    loss_r = fresh.denoise_error(*retain[0]).mean()
    g_r = gradient(loss_r)
    lambda_ = settings.retain_weight
    inner = g_f.dot(g_r)
    if method == "GradDiff" or inner >= 0:
        expected = g_f + lambda_ * g_r
    else:
        delta_f = g_f - inner / g_r.dot(g_r) * g_r
        delta_r = g_r - inner / g_f.dot(g_f) * g_f
        expected = delta_f + lambda_ * delta_r
        assert report.conflict

    actual = torch.cat([g.flatten().double() for g in directions])
    size = (g_f.norm() + lambda_ * g_r.norm()).item()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * size)
    assert report.forget_loss == pytest.approx(loss_f.item(), rel=1e-4)
    assert report.retain_loss == pytest.approx(loss_r.item(), rel=1e-4)
    assert report.grad_forget_norm == pytest.approx(g_f.norm().item(), rel=1e-3)
    assert report.grad_retain_norm == pytest.approx(g_r.norm().item(), rel=1e-3)
    cosine = (inner / g_f.norm() / g_r.norm()).item()
    assert report.cosine == pytest.approx(cosine, abs=1e-3)


def test_batches_are_rows_of_the_sets(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, retain_batch_factor=3, steps=5)
    unlearning = Unlearning(sd_model, sets, settings)
    forget, retain = record_batches(unlearning, monkeypatch)
    list(unlearning)
    (part,) = sets.paired
    for batch in forget:
        assert len(batch.latents) == len(batch.t) == len(batch.conditioning) == 3
        for i in range(3):
            # A forget picture, its prompt and its parallel come from the same row.
            matches = [torch.equal(batch.latents[i], row) for row in part.forget.latents]
            row = matches.index(True)
            assert torch.equal(batch.parallel_latents[i], part.retain.latents[row])
            conditioning = embeddings(part.forget.conditioning).values[row]
            assert torch.equal(embeddings(batch.conditioning).values[i], conditioning)
            assert torch.equal(
                embeddings(batch.parallel_conditioning).values[i],
                embeddings(part.retain.conditioning).values[row],
            )
    assert len(retain) == 3 * len(forget)
    for latents, conditioning, noise, t in retain:
        assert len(latents) == len(conditioning) == len(noise) == len(t) == 3
        for i in range(3):
            row = [torch.equal(latents[i], one) for one in part.retain.latents].index(True)
            assert torch.equal(
                embeddings(conditioning).values[i], embeddings(part.retain.conditioning).values[row]
            )
    noises = torch.cat([batch.noise for batch in forget])
    assert abs(noises.mean().item()) < 0.1
    assert noises.std().item() == pytest.approx(1, abs=0.1)
    assert len({noise.sum().item() for noise in noises}) == len(noises)


def test_timesteps_are_spread_over_the_whole_schedule(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """One in each tenth of the schedule, and all timesteps equally likely."""
    unlearning = Unlearning(sd_model, sets, replace(SETTINGS, batch_size=10))
    times = torch.stack([unlearning.batches.forget().t for _ in range(300)])  # [300, 10]
    tenths = (times * 10 // 1000).sort(1).values
    assert torch.equal(tenths, torch.arange(10).expand_as(tenths))
    assert 0 <= times.min() <= 5
    assert 994 <= times.max() <= 999
    within = (times % 100).float()
    assert within.mean().item() == pytest.approx(49.5, abs=3)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_no_row_is_limited_to_a_part_of_the_schedule(
    sd_model: ModelHandle, sets: TrainingSets, batch_size: int
) -> None:
    """Every position in a batch gets all noise levels, and both starting points at each level."""
    batches = Unlearning(sd_model, sets, replace(SETTINGS, batch_size=batch_size)).batches
    forget = [batches.forget() for _ in range(400)]
    t = torch.stack([batch.t for batch in forget]).float()
    from_concept = torch.stack([batch.from_concept for batch in forget])
    assert (t.mean(0) - 1000 / 2).abs().max() < 60
    assert (from_concept.float().mean(0) - 0.5).abs().max() < 0.1
    assert abs(t[from_concept].mean() - t[~from_concept].mean()) < 60
    if batch_size > 1:
        per_batch = from_concept.sum(1)
        assert ((per_batch - batch_size / 2).abs() <= 0.5).all()


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_learning_rate_warms_up_and_then_stays_constant_or_falls(
    schedule: str, sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlearning = Unlearning(
        sd_model, sets, replace(SETTINGS, steps=30, batch_size=1, schedule=schedule)
    )
    rates: list[float] = []
    step = unlearning.optimizer.step

    def spy(*arguments: Any, restrict: bool) -> Change:
        rates.append(arguments[4])
        return step(*arguments, restrict=restrict)

    monkeypatch.setattr(unlearning.optimizer, "step", spy)
    list(unlearning)
    assert rates[0] < rates[1] < rates[2]
    if schedule == "constant":
        assert rates[2:] == [SETTINGS.learning_rate] * 28
    else:
        steps = [rates[i] - rates[i + 1] for i in range(2, 29)]
        assert steps == pytest.approx([SETTINGS.learning_rate / 30] * 27)
        assert rates[-1] == pytest.approx(SETTINGS.learning_rate / 30)


def test_a_gradient_that_is_not_finite_stops_the_run_before_weights_change(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    (retain,) = sets.retain
    broken = replace(sets, retain=(replace(retain, latents=retain.latents * float("nan")),))
    unlearning = Unlearning(sd_model, broken, replace(SETTINGS, paired=False))
    with pytest.raises(ValueError, match="learning_rate"):
        list(unlearning)
    assert unlearning.result().reports == ()
    assert unlearning.result().model.changed_tensors() == {}


def test_a_scope_that_the_model_lacks_is_refused_before_any_work(
    class_folder: Path, sets: TrainingSets
) -> None:
    with pytest.raises(ValueError, match="scope 'xattn' does not exist in .*full"):
        Unlearning(load_model(class_folder), sets, replace(SETTINGS, scope="xattn"))


def test_weight_decay_pulls_the_weights_towards_zero(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """As in AdamW: the same step, and each weight shrinks by ``rate * decay`` of itself."""
    settings = replace(SETTINGS, steps=1, restrict_step=False, schedule="constant")
    free = weights(run(sd_model, sets, settings).model)
    decayed = weights(run(sd_model, sets, replace(settings, weight_decay=0.5)).model)
    rate = settings.learning_rate
    for name, before in weights(sd_model).items():
        expected = free[name] - rate * 0.5 * before
        torch.testing.assert_close(decayed[name], expected, rtol=1e-4, atol=1e-6)
