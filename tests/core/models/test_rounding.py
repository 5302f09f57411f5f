"""Trained weights in the 16 bits of the model's file: the change survives on average, and what is
evaluated is what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.judging.evaluators import Evaluators
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.rounding import Rounding, as_saved, measure_rounding, rounded
from unlearn_core.models.tensors import with_tensors
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

from ..watching import StopError

HALF = (torch.bfloat16, torch.float16)


@pytest.fixture(scope="module", params=HALF, ids=str)
def half_folder(
    request: pytest.FixtureRequest, sd_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("half") / "tiny-half"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(sd_folder, safety_checker=None)
    pipeline.to(request.param).save_pretrained(folder)
    return folder


def slightly_changed(model: ModelHandle, share: float = 0.2) -> ModelHandle:
    """Each trained weight moves by this share of the distance to the next bfloat16 number."""
    weights, generator = dict(model.named_parameters()), torch.Generator().manual_seed(0)
    tensors = {}
    for name in parameter_names(model, "xattn"):
        weight = weights[name].float()
        sign = torch.randn(weight.shape, generator=generator).sign()
        tensors[name] = weight + sign * share * weight.abs() / 256
    return with_tensors(model, tensors)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_expected_value_is_exact(dtype: torch.dtype) -> None:
    old = torch.linspace(0.5, 2, 5).to(dtype).float()
    step = torch.finfo(dtype).eps / 2
    exact = (old * (1 + 0.2 * step)).expand(20_000, -1)
    result = rounded("some.weight", exact, dtype).float()
    assert torch.equal(exact.to(dtype).float(), old.expand_as(exact)), "nearest loses all of it"
    torch.testing.assert_close(result.mean(0) - old, exact[0] - old, rtol=0.1, atol=0)
    assert torch.equal(rounded("some.weight", exact, dtype).float(), result)
    assert not torch.equal(rounded("other.weight", exact, dtype).float(), result)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_exact_and_special_values(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -1.5, 65504.0 if dtype == torch.float16 else 3e38, 1e-7]).to(dtype)
    assert torch.equal(rounded("w", values.float(), dtype), values)
    outside = torch.tensor([1e6, 0.1])
    assert rounded("w", outside, torch.float16) is outside, "the writer refuses it"
    edge = torch.tensor([65510.0, -65510.0])
    assert torch.equal(rounded("w", edge, torch.float16), edge.half())
    assert torch.equal(rounded("w", torch.tensor([0.1]), torch.float32), torch.tensor([0.1]))


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_a_small_change_survives_saving(
    half_folder: Path, pairs: PromptPairs, tmp_path: Path, precision: str
) -> None:
    """To the nearest number, all of it would be lost in bfloat16."""
    base = load_model(half_folder, options=LoadOptions(precision=precision))
    model = slightly_changed(base)
    result = UnlearnedModel(model, base, pairs, UnlearnSettings(), ())
    saved = load_model(save_diffusers_folder(result, tmp_path / "saved"))
    rounding = measure_rounding(model, base)
    assert rounding is not None
    assert 0.9 < rounding.captured < 1.1
    before, wanted = dict(load_model(half_folder).named_parameters()), model.changed_tensors()
    along = total = unchanged = count = 0.0
    for name, value in saved.named_parameters():
        if name in wanted:
            change = wanted[name] - before[name]
            along += ((value - before[name]) * change).sum().item()
            total += change.square().sum().item()
            unchanged += (value == before[name]).sum().item()
            count += value.numel()
        else:
            assert torch.equal(value, before[name])
    assert rounding.captured == pytest.approx(along / total, abs=1e-4)
    assert rounding.unchanged == pytest.approx(unchanged / count)

    expected = dict(as_saved(model).named_parameters())
    for name, value in saved.named_parameters():
        assert torch.equal(value, expected[name].float()), name


def test_the_message() -> None:
    assert str(Rounding(0.531, 0.999)) == (
        "in 16 bits, 53 % of the trained weights get their old value back; rounding at random "
        "keeps 99.9 % of the change"
    )


def test_a_file_of_32_bits_loses_nothing(sd_model: ModelHandle) -> None:
    model = slightly_changed(sd_model)
    assert measure_rounding(model, sd_model) is None
    assert as_saved(model) is model


def test_lora_layers_are_evaluated_unmerged(half_folder: Path) -> None:
    base = load_model(half_folder)
    model = base.lora_copy(parameter_names(base, "lora"), 2, 2.0, seed=0)
    assert as_saved(model) is model


def test_the_evaluated_model_is_the_saved_one(
    half_folder: Path, pairs: PromptPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_model(half_folder)
    model = slightly_changed(base, 40)
    result = UnlearnedModel(model, base, pairs, UnlearnSettings(), ())
    saved = load_model(save_diffusers_folder(result, tmp_path / "saved"))
    drawn: list[ModelHandle] = []

    def record(model: ModelHandle, *_: object, **__: object) -> Tensor:
        drawn.append(model)
        if len(drawn) == 2:
            raise StopError
        return torch.zeros(0)

    monkeypatch.setattr("unlearn_core.evaluation.evaluate.draw_pictures", record)
    with pytest.raises(StopError):
        evaluate(result, EvaluationSettings(pictures=2), evaluators=Evaluators(None, None))
    weights = dict(drawn[1].named_parameters())
    for name, value in saved.named_parameters():
        assert torch.equal(value, weights[name].float()), name
