"""Comparison with real ComfyUI: it opens the same checkpoints and our saved files, and its
predictions agree with ours before and after the weights change. Stable Diffusion 1.5, 2.1-v and XL,
complete except for narrower U-Nets; ``test_in_the_server`` has a full-size 1.5."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from other_loader import ComfySide, content_hash
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn_core.foundation.safetensors_file import read_header
from unlearn_core.models import weights
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import Embeddings, ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.saving.lora import save_lora
from unlearn_core.saving.single_file import save_single_file
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

PROMPTS = ["a cat by Vincent van Gogh, oil on canvas, naïve", ""]
TIMESTEP = 500
EDGE = 8
LABELS = {"sd1-ema": "sd1", "sd2-v": "sd2", "sdxl": "sdxl", "sdxl-v": "sdxl"}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ModelHandle:
    return load_model(checkpoint, options=LoadOptions(image_size=8 * EDGE))


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return diversify(
        ForgetConcept("van Gogh", "style"),
        ["a {thing} by {concept}"],
        {"thing": ("cat", "dog")},
        train_count=1,
        test_count=1,
        test_share=0.5,
    )


def ours(model: ModelHandle) -> dict[str, Tensor]:
    """The same results as from ``comfy_side.predict``."""
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, EDGE, EDGE, generator=generator)
    pixels = torch.rand(1, 8 * EDGE, 8 * EDGE, 3, generator=generator)
    encoded = model.encode_prompts(PROMPTS)
    assert isinstance(encoded, Embeddings)
    t = torch.full((2,), TIMESTEP)
    with torch.no_grad():
        output = model.predict(latents, encoded, t)
    # x_0 from eps or v; noise added to zero gives the coefficients of this noise level.
    spread = model.add_noise(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), t[:1])
    signal = model.add_noise(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), t[:1])
    if model.info.prediction == "epsilon":
        estimate = (latents - spread * output) / signal
    else:
        estimate = signal * latents - spread * output
    factor = {"sdxl": 0.13025}.get(model.info.family, 0.18215)
    return {
        "context": encoded.values,
        "estimate": estimate,
        "pixels": model.decode_latents(latents * factor).permute(0, 2, 3, 1),
        "latents": model.encode_images(pixels.permute(0, 3, 1, 2)) / factor,
    }


def assert_close(actual: Tensor, expected: Tensor, name: str) -> None:
    difference = (actual - expected).norm() / expected.norm()
    assert difference < 2e-4, f"{name}: relative difference {difference:.2e}"


def unlearned(
    model: ModelHandle, changed: ModelHandle, pairs: PromptPairs, scope: str
) -> UnlearnedModel:
    settings = UnlearnSettings(scope=scope, lora_rank=4, lora_alpha=2.0)
    return UnlearnedModel(changed, model, pairs, settings, ())


def perturbed(model: ModelHandle, names: list[str]) -> ModelHandle:
    """A copy with a large random change of the named weights, of rank 2 if they are matrices."""
    copied = model.trainable_copy(names)
    generator = torch.Generator().manual_seed(3)
    selected = set(names)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if name in selected:
                rows, columns = parameter.shape[0], parameter[0].numel()
                left = torch.randn(rows, 2, generator=generator)
                right = torch.randn(2, columns, generator=generator)
                change = left @ right if parameter.ndim > 1 else left[:, 0]
                scale = 0.3 * parameter.std() / change.std()
                parameter.add_(scale * change.reshape(parameter.shape))
    return copied


def test_the_family_is_recognised(model: ModelHandle, family: str) -> None:
    assert model.info.family == LABELS[family]
    assert model.info.prediction == ("v_prediction" if family == "sd2-v" else "epsilon")


def test_comfyui_s_predictions_agree(
    model: ModelHandle, checkpoint: Path, comfy_side: ComfySide, tmp_path: Path
) -> None:
    """Text encoder, U-Net, noise schedule, and the autoencoder in both directions."""
    (theirs,) = comfy_side.predict(tmp_path, {"checkpoint": checkpoint})
    for name, expected in ours(model).items():
        assert_close(theirs[name], expected, name)


def test_saving_an_unchanged_model_reproduces_every_bit(
    model: ModelHandle, checkpoint: Path, pairs: PromptPairs, tmp_path: Path
) -> None:
    saved = save_single_file(unlearned(model, model, pairs, "full"), tmp_path / "same.safetensors")
    before, after = read_header(checkpoint), read_header(saved)
    assert list(after.tensors.items()) == list(before.tensors.items())
    assert content_hash(saved) == content_hash(checkpoint)
    assert after.metadata["sshs_model_hash"] == content_hash(checkpoint)
    assert after.metadata["modelspec.author"] == "somebody"
    saved.unlink()


def test_comfyui_s_predictions_agree_for_a_changed_model(
    model: ModelHandle,
    checkpoint: Path,
    pairs: PromptPairs,
    comfy_side: ComfySide,
    tmp_path: Path,
    family: str,
) -> None:
    """Of the whole saved file, and of a LoRA with the same change of all layers that it can
    contain."""
    names = parameter_names(model, "xattn")
    names += [n for n, _ in model.named_parameters() if "resnets.0" in n or "time_emb" in n]
    result = unlearned(model, perturbed(model, names), pairs, "full")
    whole = save_single_file(result, tmp_path / "changed.safetensors")
    inside = {n for n, p in model.named_parameters() if p.ndim > 1 and "time_embedding" not in n}
    names = [name for name in names if name in inside]
    partial = unlearned(model, perturbed(model, names), pairs, "full")
    lora = save_lora(partial, tmp_path / "lora.safetensors", rank=4)
    assert lora.captured > 0.999
    predictions = comfy_side.predict(
        tmp_path,
        {"checkpoint": whole},
        {"checkpoint": checkpoint, "lora": lora.path, "strength": 1.0},
    )
    before = ours(model)["estimate"]
    # 16-bit weights round the change itself, both in the whole file and in the LoRA.
    for changed, prediction in zip((result, partial), predictions, strict=True):
        after = ours(changed.model)["estimate"]
        assert (after - before).norm() / before.norm() > 0.05
        error = (prediction["estimate"] - after).norm() / (after - before).norm()
        assert error < 0.02, f"{error:.2e}"
    if family == "sd1-ema":
        assert_averages_follow(whole, checkpoint)


def assert_averages_follow(whole: Path, checkpoint: Path) -> None:
    """A moving average of the old weights would bring back the unlearned concept."""
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    with safe_open(whole, "pt") as new, safe_open(checkpoint, "pt") as old:
        average = new.get_tensor("model_ema." + key.replace(".", ""))
        assert average.dtype == torch.float32
        own = new.get_tensor("model." + key)
        torch.testing.assert_close(average.to(own.dtype), own)
        assert not torch.equal(average, old.get_tensor("model_ema." + key.replace(".", "")))


def test_comfyui_s_predictions_agree_for_a_lora_run(
    model: ModelHandle,
    checkpoint: Path,
    pairs: PromptPairs,
    comfy_side: ComfySide,
    tmp_path: Path,
    family: str,
) -> None:
    """Of factors from a LoRA run, saved unchanged and merged into the whole file."""
    names = parameter_names(model, "lora")
    copied = model.lora_copy(names, 4, 2.0, seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in copied.named_parameters():
            if parameter.requires_grad:
                scale = 0.6 / parameter[0].numel() ** 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    result = unlearned(model, copied, pairs, "lora")
    lora = save_lora(result, tmp_path / "lora.safetensors")
    assert (lora.rank, lora.captured) == (4, 1.0)
    whole = save_single_file(result, tmp_path / "merged.safetensors")
    predictions = comfy_side.predict(
        tmp_path,
        {"checkpoint": checkpoint, "lora": lora.path, "strength": 1.0},
        {"checkpoint": whole},
    )
    before, after = ours(model)["estimate"], ours(copied)["estimate"]
    assert (after - before).norm() / before.norm() > 0.05
    for prediction in predictions:
        error = (prediction["estimate"] - after).norm() / (after - before).norm()
        assert error < 0.02, f"{error:.2e}"


def keys_of(model: ModelHandle) -> Iterable[str]:
    assert model.info.source is not None
    return read_header(model.info.source).tensors


@pytest.mark.parametrize("family", ["sdxl-v"], indirect=True)
def test_velocity_prediction_with_zero_terminal_snr(
    model: ModelHandle,
    checkpoint: Path,
    pairs: PromptPairs,
    comfy_side: ComfySide,
    tmp_path: Path,
    family: str,
) -> None:
    """As NoobAI-XL. ComfyUI reads both from the keys of the file, which the saved one keeps."""
    assert (model.info.family, model.info.prediction) == (LABELS[family], "v_prediction")
    result = unlearned(model, perturbed(model, parameter_names(model, "xattn")), pairs, "xattn")
    whole = save_single_file(result, tmp_path / "changed.safetensors")
    header = read_header(whole)
    assert {"v_pred", "ztsnr"} < header.tensors.keys()
    assert header.metadata["modelspec.prediction_type"] == "v"
    own, changed = comfy_side.predict(tmp_path, {"checkpoint": checkpoint}, {"checkpoint": whole})
    before, after = ours(model)["estimate"], ours(result.model)["estimate"]
    assert_close(own["estimate"], before, "estimate")
    assert (changed["estimate"] - after).norm() < 0.02 * (after - before).norm()
    folder = save_diffusers_folder(result, tmp_path / "folder")
    config: Any = DDIMScheduler.load_config(folder / "scheduler")
    assert config["rescale_betas_zero_snr"]
    assert (config["prediction_type"], config["timestep_spacing"]) == ("v_prediction", "trailing")


# The largest number of merged weights for its size: its file has an average of each weight, too.
@pytest.mark.parametrize("family", ["sd1-ema"], indirect=True)
def test_only_one_merged_weight_is_in_memory_while_saving(
    model: ModelHandle, pairs: PromptPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All merged weights of a LoRA run together can be as large as the model. Each is merged twice
    for a file, because the hash in the header precedes the content."""
    layers = parameter_names(model, "lora")
    copied = model.lora_copy(layers, 4, 2.0, seed=0)
    with torch.no_grad():
        for _, parameter in copied.named_parameters():
            if parameter.requires_grad:
                parameter.fill_(0.01)
    result = unlearned(model, copied, pairs, "lora")
    merge, in_memory, most, count = weights._merged, weakref.WeakSet[Tensor](), 0, 0

    def count_merged(layer: object) -> Tensor:
        nonlocal most, count
        merged = merge(layer)
        in_memory.add(merged)
        most, count = max(most, len(in_memory)), count + 1
        return merged

    monkeypatch.setattr(weights, "_merged", count_merged)
    save_single_file(result, tmp_path / "merged.safetensors")
    averages = 2 if any(key.startswith("model_ema.") for key in keys_of(model)) else 1
    assert (count, most) == (2 * averages * len(layers), 1)
    count = 0
    save_diffusers_folder(result, tmp_path / "folder")
    assert (count, most) == (2 * len(layers), 1)


@pytest.mark.parametrize("family", ["sd1-ema"], indirect=True)
def test_a_separate_vae(
    checkpoint: Path, comfy_side: ComfySide, tmp_path: Path, family: str
) -> None:
    """A file for the stock VAELoader, without the prefix of keys in a checkpoint."""
    prefix, vae = "first_stage_model.", tmp_path / "vae.safetensors"
    with safe_open(checkpoint, "pt") as file:
        tensors = {
            key.removeprefix(prefix): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118 - no dict
            if key.startswith(prefix)
        }
    tensors["decoder.conv_out.bias"] = tensors["decoder.conv_out.bias"] + 0.2
    save_file(tensors, vae)
    (theirs,) = comfy_side.predict(tmp_path, {"checkpoint": checkpoint, "vae": vae})
    own = load_model(checkpoint, options=LoadOptions(image_size=8 * EDGE))
    other = load_model(checkpoint, options=LoadOptions(image_size=8 * EDGE, vae=vae))
    assert_close(ours(other)["pixels"], theirs["pixels"], "pixels")
    assert not torch.allclose(ours(own)["pixels"], theirs["pixels"], atol=0.01)


@pytest.mark.parametrize("family", ["sd1-ema", "sdxl"], indirect=True)
def test_a_single_file_converted_to_a_diffusers_folder(
    model: ModelHandle,
    checkpoint: Path,
    pairs: PromptPairs,
    comfy_side: ComfySide,
    tmp_path: Path,
    family: str,
) -> None:
    """diffusers opens it as the right pipeline, ComfyUI reads its text encoders and its autoencoder
    (it does not support such narrow U-Nets), and it contains the changed model."""
    names = parameter_names(model, "xattn")
    result = unlearned(model, perturbed(model, names), pairs, "xattn")
    folder = save_diffusers_folder(result, tmp_path / "folder")
    again = load_model(folder, options=LoadOptions(image_size=8 * EDGE))
    assert again.info.family == LABELS[family]
    before, after, reloaded = (ours(m)["estimate"] for m in (model, result.model, again))
    assert (reloaded - after).norm() < 0.02 * (after - before).norm()
    encoders = sorted(folder.glob("text_encoder*/model.safetensors"))
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    job = {"checkpoint": checkpoint, "clips": encoders, "vae": vae}
    (theirs,) = comfy_side.predict(tmp_path, job)
    for name in ("context", "pixels", "latents"):
        assert_close(theirs[name], ours(again)[name], name)
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    assert type(pipeline).__name__.startswith("StableDiffusion")
    assert ("XL" in type(pipeline).__name__) is (family == "sdxl")
