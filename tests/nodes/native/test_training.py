"""Runs of the core's own loop on ComfyUI's networks, and what comes out of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..pack import pack_module
from .conftest import every_architecture, opened, trained
from .test_gradients import batch
from .tiny_networks import model

SAME = 1e-4  # relative difference of predictions in fp32


def predicted(given: Any, name: str, strength: float | None = None) -> Tensor:
    """What a MODEL predicts on its own."""
    handle = opened(name, given)
    latents, conditioning, noise, t = batch(handle)
    with torch.no_grad():
        return handle.predict(handle.add_noise(latents, noise, t), conditioning, t)


def bits(given: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in given.model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@every_architecture
def test_the_patched_model_predicts_as_the_trained_handle(name: str, pairs: Any) -> None:
    given = model(name)
    before, weights = predicted(given, name), bits(given)
    handle, unlearned = trained(name, pairs, given)
    latents, conditioning, noise, t = batch(handle)
    latents_t = handle.add_noise(latents, noise, t)
    with torch.no_grad():
        after = unlearned.model.predict(latents_t, conditioning, t)
        frozen = handle.predict(latents_t, conditioning, t)
    assert torch.equal(frozen, before)
    change = (after - before).abs().max()
    assert change > 1e-3, "it has learned something"
    patched_model = pack_module("nodes.native.patching").patched_model
    patched = predicted(patched_model(given, unlearned.model, 1.0), name)
    assert (patched - after).abs().max() < SAME * after.abs().max()
    half = predicted(patched_model(given, unlearned.model, 0.5), name)
    assert 0 < (half - before).abs().max() < change
    assert torch.equal(predicted(patched_model(given, unlearned.model, 0), name), before)
    assert torch.equal(predicted(given, name), before)
    assert equal(bits(given), weights)
