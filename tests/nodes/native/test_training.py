"""Runs of the core's own loop on ComfyUI's networks, and what comes out of them."""

from __future__ import annotations

import gc
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from torch import Tensor

from ..pack import pack_module
from .conftest import every_architecture, opened, trained
from .test_gradients import PROMPTS, batch, trainable
from .tiny_networks import ARCHITECTURES, model

SAME = 1e-4  # relative difference of predictions in fp32


def predicted(given: Any, name: str) -> Tensor:
    """What a MODEL predicts on its own."""
    handle = opened(name, given)
    latents, conditioning, noise, t = batch(handle)
    with torch.no_grad():
        return handle.predict(handle.add_noise(latents, noise, t), conditioning, t)


def bits(given: Any) -> dict[str, Tensor]:
    """Copies of the MODEL's own weights, without patches."""
    comfy.model_management.unload_all_models()
    return {name: tensor.clone() for name, tensor in given.model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def with_lora(given: Any, name: str) -> Any:
    """The MODEL after LoraLoader with some LoRA."""
    copied, _ = trainable(opened(name, given))
    lora = pack_module("nodes.native.lora_file").lora_state_dict(copied)
    return comfy.sd.load_lora_for_models(given, None, lora, 0.5, 0)[0]


@every_architecture
@pytest.mark.parametrize("lora", [False, True], ids=["as loaded", "with a LoRA"])
def test_the_patched_model_predicts_as_the_trained_handle(
    name: str, lora: bool, pairs: Any
) -> None:
    plain = model(name, inference=lora)
    given = with_lora(plain, name) if lora else plain
    before, weights = predicted(given, name), bits(given)
    if lora:
        assert (predicted(plain, name) - before).abs().max() > 1e-3
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


@every_architecture
@pytest.mark.parametrize("names", ["comfyui", "kohya", "diffusers"])
@pytest.mark.parametrize("scope", ["lora", "auto"])
def test_every_key_of_the_lora_maps_back(
    name: str, names: str, scope: str, caplog: pytest.LogCaptureFixture
) -> None:
    lora_file = pack_module("nodes.native.lora_file")
    given = model(name)
    handle = opened(name, given)
    copied, _ = trainable(handle, handle.default_scope if scope == "auto" else scope)
    if not lora_file.has_names(copied, names):
        assert names == "diffusers"
        assert name in ("sd15", "sd21-v", "sdxl", "lumina2")
        with pytest.raises(ValueError, match="names must be 'comfyui'"):
            lora_file.lora_state_dict(copied, names)
        return
    state = lora_file.lora_state_dict(copied, names)
    keys = comfy.lora.model_lora_keys_unet(given.model, {})
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(state)), keys)
    assert "lora key not loaded" not in caplog.text
    assert len({key if isinstance(key, str) else key[0] for key in loaded}) == len(
        copied.lora_layers()
    )
    patched, _ = comfy.sd.load_lora_for_models(given, None, state, 1.0, 0)
    assert "NOT LOADED" not in caplog.text
    latents, conditioning, noise, t = batch(copied)
    with torch.no_grad():
        trained_one = copied.predict(copied.add_noise(latents, noise, t), conditioning, t)
    difference = (predicted(patched, name) - trained_one).abs().max()
    assert difference < SAME * trained_one.abs().max()


@every_architecture
def test_captions_of_different_lengths_in_one_batch(name: str) -> None:
    handle = opened(name)
    latents, conditioning, noise, t = batch(handle)
    assert len({len(prompt.split()) for prompt in PROMPTS}) == len(PROMPTS)
    latents_t = handle.add_noise(latents, noise, t)
    with torch.no_grad():
        together = handle.predict(latents_t, conditioning, t)
        alone = [
            handle.predict(latents_t[i : i + 1], conditioning[[i]], t[i : i + 1]) for i in range(3)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)


def test_a_second_run_does_not_grow_memory(pairs: Any) -> None:
    given = model("flux")

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    def run() -> None:
        trained("flux", pairs, given)

    run()
    first = tensors()
    for _ in range(2):
        run()
    assert tensors() <= first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("name", ["flux", "z-image", "sd15"])
def test_frozen_weights_in_other_formats(name: str, dtype: torch.dtype, pairs: Any) -> None:
    given = model(name, dtype)
    before, weights = predicted(given, name), bits(given)
    handle, unlearned = trained(name, pairs, given)
    assert {parameter.dtype for parameter in unlearned.model.own_tensors()} == {torch.float32}
    latents, conditioning, noise, t = batch(handle)
    with torch.no_grad():
        after = unlearned.model.predict(handle.add_noise(latents, noise, t), conditioning, t)
    patched = predicted(
        pack_module("nodes.native.patching").patched_model(given, unlearned.model, 1.0), name
    )
    # The patched weights are rounded to the format, which costs a part of the change.
    limit = 0.5 if dtype == torch.bfloat16 else 2.0
    assert (patched - after).norm() < limit * (after - before).norm()
    assert torch.equal(predicted(given, name), before)
    assert equal(bits(given), weights)


def test_layers_can_be_added_to_a_fixed_copy() -> None:
    handle = opened("flux")
    copied, _ = trainable(handle)
    latents, conditioning, noise, t = batch(handle)
    latents_t = handle.add_noise(latents, noise, t)

    @torch.no_grad()
    def predicted_by(one: Any) -> Tensor:
        return one.predict(latents_t, conditioning, t)

    fixed = copied.fixed_copy()
    assert fixed.lora_layers() == {}
    assert torch.equal(predicted_by(fixed), predicted_by(copied))
    both, parameters = trainable(fixed, "lora, text path")
    assert set(both.lora_layers()) & set(copied.lora_layers())
    assert (predicted_by(both) - predicted_by(copied)).abs().max() > 1e-4
    assert torch.equal(predicted_by(fixed), predicted_by(copied))
    loss = both.denoise_error(latents, conditioning, noise, t).mean()
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert {id(tensor) for tensor in copied.own_tensors()}.isdisjoint(map(id, both.own_tensors()))


def test_a_model_in_fp16_is_trained_in_bfloat16(pairs: Any) -> None:
    """In fp16, small gradients would become zero. The MODEL itself stays in fp16."""
    given = model("sdxl", torch.float16)
    assert given.model.manual_cast_dtype is None
    drawn = _by_comfyui(given)
    handle, unlearned = trained("sdxl", pairs, given)
    assert handle.network.patcher.get_model_object("manual_cast_dtype") == torch.bfloat16
    assert handle.info.mixed
    assert unlearned.model.changed_tensors()
    assert torch.equal(_by_comfyui(given), drawn)
    assert given.model.manual_cast_dtype is None


def _by_comfyui(given: Any) -> Tensor:
    """One step of ComfyUI's own sampler."""
    row = opened("sdxl").encode_prompts(["a cat"]).rows[0].as_conditioning()
    with torch.inference_mode():
        latent = torch.zeros(1, 4, 8, 8)
        noise = comfy.sample.prepare_noise(latent, 1)
        return comfy.sample.sample(
            given, noise, 1, 1.0, "euler", "normal", row, row, latent, disable_pbar=True, seed=1
        )


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_a_closed_form_edit_of_the_weights_that_read_the_prompt(name: str, pairs: Any) -> None:
    given = model(name)
    before = predicted(given, name)
    handle, unlearned = trained(name, pairs, given, method="UCE (closed form)")
    edited = unlearned.model.changed_tensors()
    assert set(edited) == set(handle.text_projections())
    latents, conditioning, noise, t = batch(handle)
    with torch.no_grad():
        after = unlearned.model.predict(handle.add_noise(latents, noise, t), conditioning, t)
    assert (after - before).abs().max() > 1e-3
    patched = predicted(
        pack_module("nodes.native.patching").patched_model(given, unlearned.model, 1.0), name
    )
    assert (patched - after).abs().max() < SAME * after.abs().max()
    assert torch.equal(predicted(given, name), before)


@every_architecture
def test_the_scopes_of_a_family(name: str) -> None:
    handle = opened(name)
    scopes = {scope: set(handle.parameters_in(scope)) for scope in
              ("lora", "lora, text path", "lora, cross-attention", "lora, attention")}  # fmt: skip
    assert scopes["lora, attention"] < scopes["lora"]
    assert scopes["lora, text path"]
    assert bool(scopes["lora, cross-attention"]) == (ARCHITECTURES[name].latent[0] == 4)
    assert scopes[handle.default_scope]
    for scope in ("auto", "xattn", "full", "text path"):
        assert handle.parameters_in(scope) == []
    for names in scopes.values():
        assert not [name for name in names if "mod" in name.lower()], "not the timestep's layers"
