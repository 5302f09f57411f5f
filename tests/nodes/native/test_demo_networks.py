"""The demo models in ComfyUI's classes compute what diffusers and transformers compute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from operator import eq
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from demo.world import BACKGROUNDS, OBJECTS, STYLES
from unlearn_core.judging.judge import ConvJudge

from ..pack import comfyui_nodes, node_result, pack_module, refusals

# isort: split
import comfy.model_management

FOLDERS = pack_module("nodes.demo_model").FOLDERS
EMOJI_CANVAS = FOLDERS["EmojiCanvas"]
SIZES = {"EmojiCanvas": 64, "EmojiCanvas-Flow": 128}  # px
PROMPTS = ("a cat in ink style on a pink background", "pixel style rocket", "")

assert_close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def demo() -> Any:
    with torch.inference_mode():  # as in a node
        return pack_module("nodes.native.demo_networks").load_demo(EMOJI_CANVAS)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 70])
def test_a_damaged_settings_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "emoji-canvas"
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_bytes(content)
    with pytest.raises(ValueError, match="^model: 'scheduler_config.json' of .* install Unlearn"):
        pack_module("nodes.native.demo_networks").load_demo(folder)


def part(kind: Any, name: str) -> Any:
    return kind.from_pretrained(EMOJI_CANVAS / name, torch_dtype=torch.float32).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_u_net_predicts_what_diffusers_predicts(demo: Any) -> None:
    x_t, times, context = noise(3, 4, 16, 16), torch.tensor([1, 400, 999]), noise(3, 77, 96)
    expected = part(UNet2DConditionModel, "unet")(x_t, times, context).sample
    assert_close(demo.model.model.diffusion_model(x_t, times, context), expected)


def test_the_noise_schedule_is_stable_diffusion_s(demo: Any) -> None:
    """EmojiCanvas was trained with it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = (1 - betas).cumprod(0)
    assert_close(demo.model.model.model_sampling.sigmas, ((1 - alphas) / alphas).sqrt())


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_clip_encodes_a_prompt_as_transformers_does(demo: Any, prompt: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI_CANVAS / "tokenizer")
    expected = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    tokens = demo.clip.tokenize(prompt)
    assert [[token for token, _ in row] for row in tokens["l"]] == expected.tolist()
    embedding = part(CLIPTextModel, "text_encoder")(expected).last_hidden_state
    assert_close(demo.clip.encode_from_tokens(tokens), embedding)


@torch.no_grad()
def test_the_vae_decodes_and_encodes_as_diffusers_does(demo: Any) -> None:
    vae, latents = part(AutoencoderKL, "vae"), noise(2, 4, 16, 16)
    pictures = demo.vae.decode(latents)
    assert pictures.shape == (2, 64, 64, 3)
    assert_close(pictures, (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1))
    encoded = demo.vae.encode(pictures)
    expected = vae.encode(pictures.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    assert_close(encoded, expected)
    assert_close(demo.model.model.process_latent_in(encoded), vae.config.scaling_factor * expected)


@torch.inference_mode()
def test_tiled_decoding_and_encoding_use_the_right_factor(demo: Any) -> None:
    """Tiles blend into each other, so the pictures differ a little."""
    latents = demo.vae.encode(demo.vae.decode(noise(1, 4, 32, 32)))
    tiled = demo.vae.decode_tiled(latents, tile_x=16, tile_y=16, overlap=4)
    assert tiled.shape == (1, 128, 128, 3)
    assert (tiled - demo.vae.decode(latents)).abs().mean() < 0.05
    assert demo.vae.encode_tiled(tiled, tile_x=64, tile_y=64, overlap=16).shape == latents.shape


def test_the_weights_can_be_trained(demo: Any) -> None:
    tensors = (*demo.model.model.state_dict().values(), *demo.clip.get_sd().values())
    assert not any(tensor.is_inference() for tensor in (*tensors, *demo.vae.get_sd().values()))


def stock(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    """Run one of ComfyUI's own nodes."""
    kind = getattr(comfyui_nodes, "NODE_CLASS_MAPPINGS")[node_id]  # noqa: B009 - as in `pack`
    with torch.inference_mode():
        return getattr(kind(), kind.FUNCTION)(**inputs)


def draw(model_name: str, prompts: Sequence[str]) -> Tensor:
    """One picture per prompt by ComfyUI's own nodes, [N, 3, H, W] in 0..1."""
    model, clip, vae = node_result("UnlearnDemoModel", model=model_name)
    (empty,) = stock("EmptyLatentImage", width=128, height=128)
    (negative,) = stock("CLIPTextEncode", clip=clip, text="")
    pictures: list[Tensor] = []
    for seed, prompt in enumerate(prompts):
        (positive,) = stock("CLIPTextEncode", clip=clip, text=prompt)
        (latent,) = stock(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=empty,
            seed=seed, steps=20, cfg=4.0, sampler_name="euler", scheduler="normal",
        )  # fmt: skip
        pictures += stock("VAEDecode", samples=latent, vae=vae)
    return torch.cat(pictures).movedim(-1, 1)


@pytest.mark.parametrize("name", FOLDERS)
def test_ksampler_draws_what_the_prompts_describe(name: str) -> None:
    subjects = list(islice(zip(OBJECTS, cycle(STYLES), cycle(BACKGROUNDS), strict=False), 12))
    prompts = [f"a {o} in {style} style on a {color} background" for o, style, color in subjects]
    pictures = draw(name, prompts)
    assert pictures.shape == (12, 3, SIZES[name], SIZES[name])
    judgements = ConvJudge.load(EMOJI_CANVAS / "evaluation").classify(pictures)
    for i, dimension in enumerate(("object", "style", "background")):
        expected = [subject[i] for subject in subjects]
        # Each model draws about 95 % of the styles correctly.
        least = 10 if dimension == "style" else 11
        assert sum(map(eq, judgements[dimension], expected)) >= least, (dimension, judgements)


def test_a_model_that_is_not_bundled_is_refused() -> None:
    (refusal,) = refusals("UnlearnDemoModel", model="SDXL")
    assert "model must be one of EmojiCanvas" in refusal


@torch.no_grad()
def test_a_lora_of_this_pack_changes_it_as_it_was_trained() -> None:
    """By LoraLoader, whose names of the layers are ComfyUI's."""
    source = node_result("UnlearnLoadModel")[0]
    concept = node_result("UnlearnForgetConcept")[0]
    few = {"train_count": 2, "test_count": 2}
    prompts = node_result("UnlearnDiversifyPrompts", concept=concept, **few)[0]
    unlearned = node_result(
        "UnlearnRestrictedGradient", model=source, prompts=prompts, scope="lora", steps=3,
        batch_size=2, generation_steps=2, preview_every=0, learning_rate=0.01,
    )[0]  # fmt: skip
    node_result("UnlearnSaveCheckpoint", unlearned=unlearned, name="demo", save_as="LoRA")
    model, clip, _ = node_result("UnlearnDemoModel")
    (patched,) = stock(
        "LoraLoaderModelOnly", model=model, lora_name="demo.safetensors", strength_model=1.0
    )
    x_t, time = noise(2, 4, 16, 16), torch.tensor([400, 700])
    conditioning = unlearned.model.encode_prompts(PROMPTS[:2])
    context = torch.cat([clip.encode(prompt) for prompt in PROMPTS[:2]])
    before, after = (
        handle.predict(x_t, conditioning, time) for handle in (unlearned.base, unlearned.model)
    )
    assert (after - before).std() > 0.01
    for patcher, expected in ((patched, after), (model, before)):
        comfy.model_management.load_models_gpu([patcher])
        predict = patcher.model.diffusion_model
        assert_close(predict(x_t, time, context), expected, atol=1e-3)


@pytest.mark.parametrize("name", FOLDERS)
def test_from_comfyui_takes_its_size(name: str) -> None:
    model, clip, vae = node_result("UnlearnDemoModel", model=name)
    handle = node_result("UnlearnFromComfyUI", model=model, clip=clip, vae=vae)[0]
    assert handle.info.image_size == SIZES[name]
    assert handle.latent_shape[1:] == (16, 16)
    evaluators = pack_module("unlearn_core.judging.evaluators")
    assert evaluators.carries_scorer(handle)
