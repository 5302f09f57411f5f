"""Which MODELs are accepted, and what the handle says about them."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..pack import pack_module, run_node, shown_by
from .conftest import every_architecture, opened
from .test_gradients import batch
from .test_training import with_lora
from .tiny_networks import ARCHITECTURES, StandInClip, model


def refusal(given: Any, name: str = "flux") -> str:
    with pytest.raises(pack_module("unlearn_core.models.errors").UnsupportedError) as caught:
        opened(name, given)
    return str(caught.value)


@every_architecture
def test_its_kind_and_schedule(name: str) -> None:
    handle = opened(name)
    expected = {"sd15": "epsilon", "sdxl": "epsilon", "sd21-v": "v_prediction"}
    assert handle.info.prediction == expected.get(name, "flow")
    assert handle.info.source is None
    assert handle.latent_shape == ARCHITECTURES[name].latent
    levels = torch.linspace(0, 1, 101)
    t = handle.times(levels)
    assert (t.diff() >= 0).all()
    assert t.isfinite().all()
    assert len(t.unique()) > 90
    assert handle.network.schedule.sigmas(t).min() > 0


@every_architecture
def test_it_does_what_the_protocol_demands(name: str) -> None:
    assert isinstance(opened(name), pack_module("unlearn_core.models.protocol").ModelHandle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.set_model_patch_replace(lambda *_: None, "attn1", "input", 1), "attn1"),
        (lambda m: m.set_model_attn2_patch(lambda *_: None), "attn2_patch"),
        (lambda m: m.set_model_unet_function_wrapper(lambda *_: None), "model_function_wrapper"),
        (lambda m: m.add_wrapper("diffusion_model", lambda *_: None), "wrappers"),
        (lambda m: m.add_callback("on_load", lambda *_: None), "callbacks"),
        (lambda m: m.set_injections("a pack", [object()]), "injections"),
        (lambda m: m.add_object_patch("diffusion_model.img_in", nn.Linear(1, 1)), "img_in"),
        (lambda m: m.add_weight_wrapper("diffusion_model.img_in.weight", lambda w: w), "wrapped"),
    ],
)
def test_changes_that_training_would_not_see_are_refused(change: Any, words: str) -> None:
    given = model("flux")
    change(given)
    message = refusal(given)
    assert words in message
    assert "link the MODEL from before the node" in message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("WAN21", "a video model"),
        ("HunyuanVideo", "a video model"),
        ("LTXV", "a video model"),
        ("StableAudio1", "an audio model"),
        ("Hunyuan3Dv2", "a 3-D model"),
        ("SDXLRefiner", "improves"),
        ("StableCascade_C", "cascade"),
    ],
)
def test_models_that_draw_no_pictures_from_a_prompt_are_refused(kind: str, words: str) -> None:
    given = model("flux")
    given.model.__class__ = getattr(comfy.model_base, kind)
    message = refusal(given)
    assert kind in message
    assert words in message
    assert "link the MODEL of an image model" in message


def test_inpainting_models_are_refused() -> None:
    given = model("sd15")
    given.model.set_inpaint()
    assert "inpainting" in refusal(given, "sd15")


def test_foreign_weights_are_refused() -> None:
    class GGMLTensor(nn.Parameter):
        """As in the GGUF pack."""

    given = model("flux")
    with torch.inference_mode(False):
        given.model.diffusion_model.img_in.weight = GGMLTensor(torch.zeros(1), requires_grad=False)
    assert "GGMLTensor (GGUF" in refusal(given)

    class GGUFModelPatcher(ModelPatcher):
        """As in the GGUF pack."""

    given = model("flux")
    given.__class__ = GGUFModelPatcher
    assert "GGUFModelPatcher (GGUF" in refusal(given)


def test_a_model_that_can_only_be_streamed_is_refused() -> None:
    class Streaming(ModelPatcher):
        """As in newer ComfyUIs, for a model that none of their loaders made."""

        def clone(self, disable_dynamic: bool = False) -> Any:
            assert disable_dynamic
            raise RuntimeError("cached_patcher_init is not initialized")

    given = model("flux")
    given.__class__ = Streaming
    assert "--disable-dynamic-vram" in refusal(given)


def test_an_unlisted_transformer_is_trained_by_the_names_of_its_layers() -> None:
    class Another(comfy.model_base.Flux):
        """Not known by name."""

    given = model("flux")
    families = pack_module("nodes.native.families")
    given.model.__class__ = type("Another", (comfy.model_base.BaseModel,), {})
    family = families.family_of(given.model)
    assert family.label.endswith("Another")
    names = list(pack_module("nodes.native.network").Network(given).modules)
    scopes = {scope: families.layers_in(family, names, scope) for scope in family.scopes}
    flux = opened("flux")
    assert [f"{name}.weight" for name in scopes["lora"]] == flux.parameters_in("lora")
    assert any("txt_attn" in name for name in scopes["lora, text path"])
    assert any("img_attn" in name for name in scopes["lora, attention"])
    assert not any("img_mlp" in name for name in scopes["lora, attention"])


def test_settings_of_the_given_model_are_respected() -> None:
    """ModelSamplingFlux and the like."""
    given = model("flux")
    shifted = given.clone()
    sampling: Any = type(given.get_model_object("model_sampling"))(given.model.model_config)
    sampling.set_parameters(shift=3.0)
    shifted.add_object_patch("model_sampling", sampling)
    plain, other = opened("flux", given), opened("flux", shifted)
    assert other.times(torch.tensor([0.5])) > plain.times(torch.tensor([0.5]))
    assert plain.info.fingerprint != other.info.fingerprint


def test_the_fingerprint_is_that_of_the_weights_and_settings() -> None:
    given = model("sd15")
    own = opened("sd15", given).info.fingerprint
    assert opened("sd15", model("sd15")).info.fingerprint == own
    assert opened("sd15", model("sd15", seed=1)).info.fingerprint != own
    assert opened("sd15", with_lora(given, "sd15")).info.fingerprint != own
    clip = StandInClip(ARCHITECTURES["sd15"])
    clip.layer_idx = -2
    native = pack_module("nodes.native.opening").open_native
    assert native(given, clip).info.fingerprint != own
    assert native(given, StandInClip(ARCHITECTURES["sd15"])).info.fingerprint == own


def test_without_a_vae_training_works_and_pictures_are_refused() -> None:
    native = pack_module("nodes.native.opening").open_native
    handle = native(model("flux"), StandInClip(ARCHITECTURES["flux"]), image_size=64)
    latents, conditioning, noise, t = batch(handle)
    assert handle.denoise_error(latents, conditioning, noise, t).isfinite().all()
    for call in (lambda: handle.decode_latents(latents), lambda: handle.encode_images(latents)):
        with pytest.raises(ValueError, match="vae must be linked"):
            call()


def test_the_size_must_fit() -> None:
    native = pack_module("nodes.native.opening").open_native
    with pytest.raises(ValueError, match="image_size must be a multiple of 16"):
        native(model("flux"), StandInClip(ARCHITECTURES["flux"]), image_size=60)


def test_the_node() -> None:
    given, clip = model("flux"), StandInClip(ARCHITECTURES["flux"])
    output = run_node("UnlearnFromComfyUI", model=given, clip=clip)
    assert output.result is not None
    handle, info = output.result
    assert handle.info.image_size == 1024
    assert shown_by(output)["text"] == [info]
    for words in (
        "Flux, predicts flow, 1024 × 1024 px",
        "guidance_scale 1 ",
        "text path",
        "no VAE",
    ):
        assert words in info


def test_a_configuration_that_answers_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ComfyUI since 0.33, whose configuration also warns of each attribute that it lacks."""
    given = model("sd15")
    kind = type(given.model.model_config)
    monkeypatch.setattr(kind, "__getattr__", lambda *_: None, raising=False)
    native = pack_module("nodes.native.opening").open_native
    info = native(given, StandInClip(ARCHITECTURES["sd15"])).info
    assert (info.image_size, info.evaluation) == (512, None)


def test_a_model_whose_weights_require_gradients_is_frozen() -> None:
    """As one that was built outside inference mode: only the added layers may be trained."""
    given = model("sd15")
    opened("sd15", given)  # replaces the tensors of inference mode, whose flag is fixed
    for parameter in given.model.parameters():
        parameter.requires_grad_(True)
    handle = opened("sd15", given)
    settings = pack_module("unlearn_core.unlearning.settings").UnlearnSettings(scope="lora")
    copied, trained = pack_module("unlearn_core.unlearning.scopes").trainable(handle, settings)
    assert len(trained) == 2 * len(copied.lora_layers())
    assert not any(parameter.requires_grad for parameter in given.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_weight_that_is_not_finite_is_named(dtype: torch.dtype) -> None:
    """Before anything is drawn, and whatever the format of the weights."""
    given = model("flux", dtype)
    weight = next(w for w in given.model.diffusion_model.parameters() if w.dtype == dtype)
    (name,) = [n for n, w in given.model.diffusion_model.named_parameters() if w is weight]
    plain = weight.detach().float().clone()
    plain.view(-1)[-1] = float("nan")
    weight.data = plain.to(dtype)
    with pytest.raises(ValueError, match=rf"^model: it holds NaN in tensor '{name}'; .* LoRAs"):
        opened("flux", given)


def test_a_lora_that_is_not_finite_is_named() -> None:
    """ComfyUI adds it to the weights without a word."""
    given, name = model("sd15"), "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    width = given.model.diffusion_model.get_submodule(name).weight.shape
    lora = {f"diffusion_model.{name}.diff": torch.full(width, float("inf"))}
    patched, _ = comfy.sd.load_lora_for_models(given, None, lora, 1.0, 0.0)
    with pytest.raises(ValueError, match=rf"^model: it holds infinity in tensor '{name}.weight'"):
        opened("sd15", patched)
