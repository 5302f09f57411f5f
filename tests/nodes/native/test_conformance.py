"""The native handle agrees with the core's own handle on equal Stable Diffusion 1.5 weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from torch import Tensor

from ..pack import pack_module
from .same_weights import as_comfyui, write_folder

PROMPTS = ["a cat in ink style", "a very large house", ""]
RELATIVE = ABSOLUTE = 1e-4  # fp32; ComfyUI and diffusers order their operations differently


@dataclass
class Both:
    core: Any
    native: Any


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = write_folder(tmp_path_factory.mktemp("models") / "tiny-sd15")
    core = pack_module("unlearn_core.models.load").load_model(folder)
    native = pack_module("nodes.native.opening").open_native(*as_comfyui(folder), image_size=16)
    return Both(core, native)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=RELATIVE, atol=ABSOLUTE)


def noise(seed: int) -> Tensor:
    shape = (len(PROMPTS), 4, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_shapes_and_names(both: Both) -> None:
    for name in ("latent_shape", "size_step", "device"):
        assert getattr(both.native, name) == getattr(both.core, name), name
    assert both.native.info.prediction == both.core.info.prediction == "epsilon"
    names = pack_module("nodes.native.names").unet_names(both.native.network.model)
    layers = pack_module("unlearn_core.models.layers")
    for scope in layers.LOW_RANK:
        native = [names[n.removesuffix(".weight")] for n in both.native.parameters_in(scope)]
        core = [n.removesuffix(".weight") for n in both.core.parameters_in(scope)]
        assert core
        assert sorted(native) == sorted(core), scope


def test_prompts(both: Both) -> None:
    native, core = (one.encode_prompts(PROMPTS).text_inputs() for one in (both.native, both.core))
    for one, other in zip(native["tokens"], core["tokens"], strict=True):
        close(one, other)


LONG = ", ".join(f"{word} number {i}" for i in range(8) for word in ("tree", "cloud", "bird"))


@pytest.mark.parametrize(
    "prompt",
    [
        "a (cat:1.3) in ink style",
        "a ((cat)) in (ink style, (very dark:0.5):1.2)",
        r"a cat \(animal\), (ink:1.3",
        "(a cat:) by night), [ink] <lora:ink:0.8> BREAK house",
        "(cat:.7)(dog:1e-1)",
        LONG,
        f"{LONG}, (in ink style:1.4)",
        f"({LONG}:1.1), (a cat), (a dog), {LONG}",
        "word " * 73 + "(two words:1.2)",  # does not fit in the first chunk
        "word " * 75,
    ],
)
def test_syntax_and_long_prompts(both: Both, prompt: str) -> None:
    both.core.check_prompts([prompt])
    both.native.check_prompts([prompt])
    prompts = [prompt, "a dog"]
    native, core = (one.encode_prompts(prompts).text_inputs() for one in (both.native, both.core))
    for one, other in zip(native["tokens"], core["tokens"], strict=True):
        close(one, other)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_clip_skip_is_clip_set_last_layer(
    tmp_path_factory: pytest.TempPathFactory, clip_skip: int
) -> None:
    folder = write_folder(tmp_path_factory.mktemp("models") / "tiny-sd15")
    options = pack_module("unlearn_core.models.options").LoadOptions
    load_model = pack_module("unlearn_core.models.load").load_model
    core = load_model(folder, options=options(clip_skip=clip_skip))
    model, clip, vae = as_comfyui(folder)
    skipping = clip.clone()
    skipping.clip_layer(-clip_skip)
    opened = pack_module("nodes.native.opening").open_native
    native = opened(model, skipping, vae, image_size=16)
    prompts = [*PROMPTS, LONG]
    ours, theirs = (one.encode_prompts(prompts).text_inputs()["tokens"] for one in (core, native))
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)
    plain = load_model(folder).encode_prompts(prompts).text_inputs()["tokens"]
    assert torch.equal(plain[0], ours[0]) == (clip_skip == 1)
    same = opened(model, clip, vae, image_size=16).info.fingerprint == native.info.fingerprint
    assert not same, "another layer is another model for caches"


@torch.no_grad()
def test_a_batch_of_prompts_of_different_length(both: Both) -> None:
    prompts = ["a cat in ink style", LONG, f"{LONG}, {LONG}"]
    t = both.core.times(torch.tensor([0.01, 0.4, 0.99]))
    outputs = [
        one.predict(noise(2), one.encode_prompts(prompts), t) for one in (both.native, both.core)
    ]
    close(*outputs)


def test_a_missing_embedding_is_refused(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ComfyUI omits it with a note in the log; the core has no embeddings at all."""
    (tmp_path / "style").mkdir()
    for name in ("ink-v2.safetensors", "style/dark.pt"):
        (tmp_path / name).touch()
    places = {"embeddings": ([str(tmp_path)], {".safetensors", ".pt"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", places)
    present = ["a cat, embedding:ink-v2, night", "(embedding:style/dark.pt:1.2)"]
    both.native.check_prompts(present)
    with pytest.raises(ValueError, match="there is no embedding 'ink' in ComfyUI"):
        both.native.check_prompts([*present, "a cat, embedding:ink, night"])
    with pytest.raises(ValueError, match="'embedding:ink-v2,' needs a file of ComfyUI"):
        both.core.check_prompts(present)


def test_noise_levels(both: Both) -> None:
    levels = torch.linspace(0, 1, 100)
    assert torch.equal(both.native.times(levels), both.core.times(levels))
    t = both.core.times(torch.tensor([0.0, 0.4, 0.99]))
    close(both.native.add_noise(noise(0), noise(1), t), both.core.add_noise(noise(0), noise(1), t))


@torch.no_grad()
def test_predictions_and_losses(both: Both) -> None:
    t = both.core.times(torch.tensor([0.01, 0.4, 0.99]))
    predictions, losses = [], []
    for one in (both.native, both.core):
        conditioning = one.encode_prompts(PROMPTS)
        predictions.append(one.predict(noise(2), conditioning, t))
        losses.append(one.denoise_error(noise(0), conditioning, noise(1), t))
    close(*predictions)
    close(*losses)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_pictures(both: Both, guidance: float) -> None:
    drawn = [
        one.sample(PROMPTS, [3, 4, 5], steps=6, guidance_scale=guidance)
        for one in (both.native, both.core)
    ]
    close(*drawn)
    torch.testing.assert_close(
        both.native.decode_latents(drawn[1]), both.core.decode_latents(drawn[1]), rtol=0, atol=1e-4
    )


def test_reading_pictures(both: Both) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    close(both.native.encode_images(images), both.core.encode_images(images))


@pytest.mark.parametrize("scope", ["lora", "lora, cross-attention"])
def test_both_reach_the_same_lora(both: Both, pairs: Any, scope: str) -> None:
    engine = pack_module("unlearn_core.job.engine")
    settings = pack_module("unlearn_core.unlearning.settings").UnlearnSettings(
        scope=scope, steps=4, batch_size=2, learning_rate=0.001, lora_rank=4
    )
    drawing = pack_module("unlearn_core.dataset.settings").GenerationSettings(
        steps=3, guidance_scale=3.0
    )
    runs = []
    for one in (both.native, both.core):
        with torch.inference_mode(False):
            task = engine.Task(one, pairs, settings, drawing)
            runs.append(engine.unlearn(task, engine.Observer()))
    native, core = runs
    for one, other in zip(native.reports, core.reports, strict=True):
        assert one.forget_loss == pytest.approx(other.forget_loss, rel=1e-3)
        assert one.retain_loss == pytest.approx(other.retain_loss, rel=1e-2, abs=1e-7)
    names = pack_module("nodes.native.names").unet_names(both.native.network.model)
    layers = {names[name]: layer for name, layer in native.model.lora_layers().items()}
    others = core.model.lora_layers()
    assert layers.keys() == others.keys()
    for name, layer in layers.items():
        torch.testing.assert_close(layer.down, others[name].down, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(layer.up, others[name].up, rtol=1e-2, atol=1e-4)
