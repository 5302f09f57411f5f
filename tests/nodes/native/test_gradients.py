"""Predictions and their gradients in ComfyUI's own networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ..pack import pack_module
from .conftest import every_architecture, opened
from .tiny_networks import model

PROMPTS = ["a cat in ink style", "a dog", "a house in a wide green field"]
RATIO = 0.02  # allowed relative difference to finite differences in fp32


def batch(handle: Any) -> tuple[Tensor, Any, Tensor, Tensor]:
    """Latents, conditioning, noise and timesteps."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(PROMPTS), *handle.latent_shape)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    t = handle.times(torch.tensor([0.2, 0.5, 0.8]))
    return latents, handle.encode_prompts(PROMPTS), noise, t


def trainable(handle: Any, scope: str = "lora") -> tuple[Any, list[torch.nn.Parameter]]:
    """A copy with low-rank layers that already have an effect: at the start, half of the gradients
    are zero."""
    copied = handle.lora_copy(handle.parameters_in(scope), 4, 4.0, 0)
    parameters = [p for _, p in copied.named_parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters[1::2]:  # `up`
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return copied, parameters


@every_architecture
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_agree_with_finite_differences(
    name: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if checkpointing:
        monkeypatch.setattr(pack_module("nodes.native.hooks"), "FULL_SIZE", 0)
    handle = opened(name)
    copied, parameters = trainable(handle)
    latents, conditioning, noise, t = batch(handle)

    def loss() -> Tensor:
        return copied.denoise_error(latents, conditioning, noise, t).mean()

    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    generator = torch.Generator().manual_seed(3)
    # Along the gradient, with random factors: rounding would drown a small slope.
    along = [
        g * torch.rand(g.shape, generator=generator) / g.norm().clamp(min=1e-12) for g in gradients
    ]
    slope = sum((g * d).sum() for g, d in zip(gradients, along, strict=True))

    @torch.no_grad()
    def moved(by: float) -> float:
        for parameter, direction in zip(parameters, along, strict=True):
            parameter.add_(direction, alpha=by)
        value = loss().double().item()
        for parameter, direction in zip(parameters, along, strict=True):
            parameter.sub_(direction, alpha=by)
        return value

    step = 1e-2
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(float(slope), rel=RATIO)


def test_attention_without_a_backward_pass_is_replaced() -> None:
    """SageAttention and the like, by command line or by a node."""
    given = model("flux")
    calls: list[int] = []

    def quick(attention: Any, *args: Any, **named: Any) -> Tensor:
        calls.append(1)
        return attention(*args, **named).detach()

    handle = opened("flux", given)
    copied, parameters = trainable(handle)
    latents, conditioning, noise, t = batch(handle)
    expected = torch.autograd.grad(
        copied.denoise_error(latents, conditioning, noise, t).mean(),
        parameters,
        materialize_grads=True,
    )
    given.model_options["transformer_options"]["optimized_attention_override"] = quick
    again, parameters = trainable(opened("flux", given))
    loss = again.denoise_error(latents, conditioning, noise, t).mean()
    for one, other in zip(
        expected, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert not calls
    again.sample(["a cat"], [1], steps=1, guidance_scale=1.0)
    assert calls, "pictures are drawn as the MODEL draws them"
