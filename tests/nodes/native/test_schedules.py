"""Noise schedules of ComfyUI's kinds of models."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.model_sampling as kinds
import pytest
import torch
from comfy.model_base import ModelType, model_sampling

from ..pack import pack_module

LEVELS = torch.tensor([0.02, 0.3, 0.5, 0.9, 0.999])


def sampling(kind: ModelType, **settings: Any) -> Any:
    return model_sampling(SimpleNamespace(sampling_settings=settings), kind)


def _x0() -> Any:
    """As by the node ModelSamplingDiscrete."""
    return type("X0", (kinds.ModelSamplingDiscrete, kinds.X0), {})()


SCHEDULES: dict[str, tuple[Callable[[], Any], str]] = {
    "epsilon": (lambda: sampling(ModelType.EPS), "epsilon"),
    "v": (lambda: sampling(ModelType.V_PREDICTION), "v_prediction"),
    "v, zero terminal SNR": (lambda: sampling(ModelType.V_PREDICTION, zsnr=True), "v_prediction"),
    "x0": (_x0, "epsilon"),
    "flow": (lambda: sampling(ModelType.FLOW, shift=3.0), "flow"),
    "flow of AuraFlow": (lambda: sampling(ModelType.FLOW, shift=1.73, multiplier=1.0), "flow"),
    "Flux": (lambda: sampling(ModelType.FLUX), "flow"),
    "EDM": (
        lambda: sampling(ModelType.EDM, sigma_data=0.5, sigma_min=0.002, sigma_max=80.0),
        "epsilon",
    ),
    "EDM v": (lambda: sampling(ModelType.V_PREDICTION_EDM), "epsilon"),
    "Cosmos": (lambda: sampling(ModelType.FLOW_COSMOS), "epsilon"),
}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def schedule(name: str) -> Any:
    return pack_module("nodes.native.schedules").schedule_of(SCHEDULES[name][0]())


@every_schedule
def test_the_output_of_a_perfect_denoiser_is_the_target(name: str) -> None:
    one = schedule(name)
    assert one.prediction == SCHEDULES[name][1]
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    t = one.times(LEVELS)
    inputs = one.network_input(one.add_noise(latents, noise, t), t)
    output = one.output(inputs, latents, t)
    torch.testing.assert_close(output, one.target(latents, noise, t), rtol=1e-3, atol=1e-3)


@every_schedule
def test_noise_is_added_as_comfyui_does(name: str) -> None:
    one = schedule(name)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    t = one.times(LEVELS)
    ours = one.network_input(one.add_noise(latents, noise, t), t)
    theirs = one.sampling.noise_scaling(one.sigmas(t), noise, latents)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@every_schedule
def test_timesteps_rise_with_the_level_within_the_models_range(name: str) -> None:
    one = schedule(name)
    sigmas = one.sigmas(one.times(torch.linspace(0, 1, 1001)))
    assert (sigmas.diff() >= 0).all()
    assert sigmas[0] >= float(one.sampling.sigma_min) * 0.999
    assert sigmas[-1] <= float(one.sampling.sigma_max) * 1.001
    assert sigmas[500] > 2 * sigmas[50]


def test_a_shift_moves_the_timesteps() -> None:
    native = pack_module("nodes.native.schedules").schedule_of
    plain, shifted = (native(sampling(ModelType.FLOW, shift=shift)) for shift in (1.0, 3.0))
    assert plain.times(torch.tensor([0.5])) == pytest.approx(0.5)
    assert shifted.times(torch.tensor([0.5])) == pytest.approx(0.75)  # 3 t / (1 + 2 t)


def test_the_scheduler_of_diffusers_gets_the_same_schedule() -> None:
    from diffusers import DPMSolverMultistepScheduler

    one = schedule("epsilon")
    config = one.scheduler_config()
    scheduler: Any = DPMSolverMultistepScheduler.from_config(config)
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    torch.testing.assert_close(sigmas, one.sampling.sigmas, rtol=1e-4, atol=1e-5)
