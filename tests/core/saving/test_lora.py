"""LoRA files of every scope load in diffusers, and in a program that has only kohya's names;
``tests/checkpoints`` loads them in ComfyUI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.models.tensors import with_tensors
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.lora import save_lora
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

# Modules inside which kohya's trainer, sd-scripts/networks/lora.py, looks for linear layers and
# convolutions: UNET_TARGET_REPLACE_MODULE and UNET_TARGET_REPLACE_MODULE_CONV2D_3X3.
KOHYA = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
SCOPES = ("xattn", "full", "noxattn", "noxattn-2025", "attention", "text path")


@pytest.fixture(params=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, sd_folder: Path, sdxl_folder: Path) -> Path:
    return {"sd": sd_folder, "sdxl": sdxl_folder}[request.param]


def changed(base: ModelHandle, scope: str, pairs: PromptPairs) -> UnlearnedModel:
    """A large random change of every tensor in the scope."""
    generator = torch.Generator().manual_seed(0)
    weights = dict(base.named_parameters())
    tensors = {
        name: weights[name] + 0.1 * torch.randn(weights[name].shape, generator=generator)
        for name in parameter_names(base, scope)
    }
    settings = UnlearnSettings(scope=scope)
    return UnlearnedModel(with_tensors(base, tensors), base, pairs, settings, ())


def unet_of(model: ModelHandle) -> nn.Module:
    assert isinstance(model, StableDiffusionHandle)
    return model.base


def kohya_layers(unet: nn.Module) -> dict[str, str]:
    """kohya's name of each layer that its trainer adapts -> its weight."""
    return {
        f"lora_unet_{name}_{child}".replace(".", "_"): f"{name}.{child}.weight"
        for name, module in unet.named_modules()
        if type(module).__name__ in KOHYA
        for child, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }


def with_kohya_names(base: ModelHandle, file: Path) -> ModelHandle:
    """The model with a LoRA, read by kohya's names alone."""
    lora, layers = load_file(file), kohya_layers(unet_of(base))
    weights, tensors = dict(base.named_parameters()), {}
    for key in [key for key in lora if key.endswith(".alpha")]:
        layer = key.removesuffix(".alpha")
        down, up = lora.pop(f"{layer}.lora_down.weight"), lora.pop(f"{layer}.lora_up.weight")
        scale = lora.pop(key).item() / len(down)
        old = weights[layers[layer]]
        delta = scale * up.flatten(1) @ down.flatten(1)
        tensors[layers[layer]] = old + delta.reshape(old.shape)
    assert not lora, "the file has keys that kohya's programs do not read"
    return with_tensors(base, tensors)


def prediction(model: ModelHandle, denoiser: Any = None) -> Tensor:
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    other: Any = model if denoiser is None else replace(model, denoiser=denoiser)  # type: ignore[type-var]
    with torch.no_grad():
        prompts = model.encode_prompts(["a cat", "a dog"])
        return other.predict(latents, prompts, torch.tensor([300, 700]))


@pytest.mark.parametrize("scope", SCOPES)
def test_a_lora_of_any_scope_gives_the_same_model_in_every_program(
    folder: Path, pairs: PromptPairs, tmp_path: Path, scope: str
) -> None:
    base = load_model(folder)
    unlearned = changed(base, scope, pairs)
    saved = save_lora(unlearned, tmp_path / "without-cat.safetensors", rank=64)

    layers = set(kohya_layers(unet_of(base)).values())
    matrices = {k: v for k, v in unlearned.model.changed_tensors().items() if k in layers}
    expected = prediction(with_tensors(base, matrices))
    assert (expected - prediction(base)).norm() > 0.01 * expected.norm()
    kind: Any = StableDiffusionXLPipeline if "xl" in folder.name else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder)
    pipeline.load_lora_weights(str(saved.path))
    for output in (
        prediction(base, pipeline.unet),
        prediction(with_kohya_names(base, saved.path)),
    ):
        torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)

    before = dict(base.named_parameters())
    sizes = {
        name: (value - before[name]).square().sum().item()
        for name, value in unlearned.model.changed_tensors().items()
    }
    share = sum(sizes[name] for name in matrices) / sum(sizes.values())
    assert saved.captured == pytest.approx(share, abs=1e-4)
    assert (share == 1) is (scope == "text path")


def test_a_change_that_no_lora_contains(
    sd_model: ModelHandle, pairs: PromptPairs, tmp_path: Path
) -> None:
    bias = dict(sd_model.named_parameters())["conv_in.bias"]
    model = with_tensors(sd_model, {"conv_in.bias": bias + 1})
    result = UnlearnedModel(model, sd_model, pairs, UnlearnSettings(), ())
    with pytest.raises(ValueError, match="no weights have changed that a LoRA can contain"):
        save_lora(result, tmp_path / "lora.safetensors")
    assert list(tmp_path.iterdir()) == []
