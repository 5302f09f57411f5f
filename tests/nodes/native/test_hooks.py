"""The shared network is left as it was, whatever happens during a prediction."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from torch import nn

from ..pack import pack_module
from .conftest import every_architecture, opened
from .test_gradients import batch, trainable


def untouched(handle: Any) -> bool:
    parts = handle.network.model.modules()
    mode = getattr(comfy.model_management, "in_training", False)
    return not mode and not any("forward" in vars(part) for part in parts)


def deepest_layer(handle: Any) -> nn.Module:
    """The last layer with a trained change."""
    return handle.network.modules[list(handle.adapters.layers)[-1]]


@every_architecture
@pytest.mark.parametrize("gradient", [False, True])
def test_a_prediction_leaves_nothing_behind(name: str, gradient: bool) -> None:
    copied, parameters = trainable(opened(name))
    latents, conditioning, noise, t = batch(copied)
    with torch.set_grad_enabled(gradient):
        loss = copied.denoise_error(latents, conditioning, noise, t).mean()
    assert loss.requires_grad == gradient
    assert untouched(copied)
    if gradient:
        torch.autograd.grad(loss, parameters, materialize_grads=True)
        assert untouched(copied)


@pytest.mark.parametrize(
    "error", [InterruptProcessingException(), torch.OutOfMemoryError("no room")], ids=type
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_error_in_a_layer_removes_all_hooks(
    error: Exception, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if checkpointing:
        monkeypatch.setattr(pack_module("nodes.native.hooks"), "FULL_SIZE", 0)
    copied, parameters = trainable(opened("flux"))
    latents, conditioning, noise, t = batch(copied)

    def fail(*_: object) -> None:
        assert not untouched(copied), "the hooks were on"
        raise error

    with deepest_layer(copied).register_forward_pre_hook(fail), pytest.raises(type(error)):
        copied.denoise_error(latents, conditioning, noise, t)
    assert untouched(copied)
    if checkpointing:
        loss = copied.denoise_error(latents, conditioning, noise, t).mean()
        with deepest_layer(copied).register_forward_pre_hook(fail), pytest.raises(type(error)):
            torch.autograd.grad(loss, parameters, materialize_grads=True)
        assert untouched(copied)
    loss = copied.denoise_error(latents, conditioning, noise, t).mean()
    assert torch.autograd.grad(loss, parameters, materialize_grads=True)


def test_cancel_is_raised_inside_a_layer() -> None:
    """ComfyUI checks for it in each of its layers."""
    copied, _ = trainable(opened("flux"))
    latents, conditioning, noise, t = batch(copied)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(InterruptProcessingException):
        copied.denoise_error(latents, conditioning, noise, t)
    assert untouched(copied)


def test_recomputation_after_the_prediction_includes_the_trained_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient of a checkpointed network is that of the network itself."""
    copied, parameters = trainable(opened("flux"))
    latents, conditioning, noise, t = batch(copied)

    def gradients(model: Any) -> tuple[torch.Tensor, ...]:
        loss = model.denoise_error(latents, conditioning, noise, t).mean()
        with torch.no_grad():  # a prediction of the frozen network in between
            opened_again.denoise_error(latents, conditioning, noise, t)
        return torch.autograd.grad(loss, parameters, materialize_grads=True)

    opened_again = opened("flux", copied.network.given)
    plain = gradients(copied)
    monkeypatch.setattr(pack_module("nodes.native.hooks"), "FULL_SIZE", 0)
    vars(copied).pop("_hooks")
    for one, other in zip(plain, gradients(copied), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_picture_is_drawn_without_gradients() -> None:
    """Also in the midst of training, where they are on."""
    copied, _ = trainable(opened("sd15"))
    with torch.enable_grad():
        drawn = copied.sample(["a cat"], [1], steps=2, guidance_scale=2.0)
    assert not drawn.requires_grad


def test_a_prediction_in_inference_mode() -> None:
    copied, _ = trainable(opened("flux"))
    latents, conditioning, _, t = batch(copied)
    with torch.inference_mode():
        prediction = copied.predict(latents, conditioning, t)
    assert not prediction.requires_grad
    assert untouched(copied)


def test_another_s_forward_is_restored() -> None:
    copied, _ = trainable(opened("flux"))
    layer, calls = deepest_layer(copied), []
    own = layer.forward
    layer.forward = lambda x: (calls.append(1), own(x))[1]
    theirs = layer.forward
    latents, conditioning, noise, t = batch(copied)
    copied.denoise_error(latents, conditioning, noise, t)
    assert calls
    assert layer.forward is theirs
