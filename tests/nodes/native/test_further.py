"""Further architectures: each is trained, patched, saved and drawn with once."""

from __future__ import annotations

import comfy.lora
import comfy.lora_convert
import pytest
import torch
from torch import Tensor

from ..pack import pack_module
from .conftest import opened_tiny
from .further_networks import FURTHER
from .test_gradients import PROMPTS, RATIO, batch, trainable
from .test_hooks import untouched
from .test_training import SAME, bits, equal
from .tiny_networks import model_of


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("scope", ["lora", "auto"])
def test_it_is_trained_patched_saved_and_drawn(
    name: str, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module("nodes.native.hooks"), "FULL_SIZE", 0)  # recompute
    tiny = FURTHER[name]
    given = model_of(tiny)
    handle = opened_tiny(tiny, given)
    assert handle.info.family == name
    weights = bits(given)
    copied, parameters = trainable(handle, handle.default_scope if scope == "auto" else scope)
    latents, conditioning, noise, t = batch(handle)

    def loss() -> Tensor:
        return copied.denoise_error(latents, conditioning, noise, t).mean()

    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    slope = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    assert slope > 0
    values = []
    for by in (0.01, -0.01):
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g, alpha=by / float(slope))
            values.append(loss().double())
            for p, g in zip(parameters, gradients, strict=True):
                p.sub_(g, alpha=by / float(slope))
    assert float(values[0] - values[1]) / 0.02 == pytest.approx(float(slope), rel=RATIO)

    latents_t = handle.add_noise(latents, noise, t)
    patched_model = pack_module("nodes.native.patching").patched_model
    with torch.no_grad():
        before = handle.predict(latents_t, conditioning, t)
        after = copied.predict(latents_t, conditioning, t)
        assert (after - before).abs().max() > 1e-5
        patched = opened_tiny(tiny, patched_model(given, copied, 1.0))
        difference = patched.predict(latents_t, conditioning, t) - after
    assert difference.abs().max() < SAME * after.abs().max()

    lora_file = pack_module("nodes.native.lora_file")
    for names in filter(lambda names: lora_file.has_names(copied, names), lora_file.NAMES):
        state = lora_file.lora_state_dict(copied, names)
        keys = comfy.lora.model_lora_keys_unet(given.model, {})
        loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), keys)
        modules = {key if isinstance(key, str) else key[0] for key in loaded}
        assert len(modules) == len(copied.lora_layers()), names

    drawn = copied.sample(PROMPTS[:1], [1], steps=2, guidance_scale=2.0)
    assert drawn.shape == (1, *tiny.latent)
    assert drawn.isfinite().all()
    assert untouched(copied)
    assert equal(bits(given), weights)
