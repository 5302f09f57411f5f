"""A small Stable Diffusion 3 in ComfyUI's classes computes what diffusers computes.

The weights are random; the shape is EmojiCanvas-Flow's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from unlearn_core.models.text import Clip, clip_tokenizer, save_clip

from ..pack import pack_module
from .test_demo_networks import noise, stock

assert_close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)

PROMPTS = ("a cat in ink style on a pink background", "pixel style rocket", "")
WIDTH = 48  # of each text encoder


def text_encoder() -> Any:
    """With weights that 16 bits represent exactly: ComfyUI keeps text encoders in 16 bits."""
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3,
            num_attention_heads=4, projection_dim=WIDTH, bos_token_id=49406, eos_token_id=49407,
        )
    )  # fmt: skip
    return encoder.half().float().eval()


@pytest.fixture(
    scope="module",
    params=[(5, 6, 32), (2, 2, 64), (1, 2, 64)],
    ids=lambda shape: f"{shape[0]} blocks",
)
def pipeline(request: pytest.FixtureRequest) -> Any:
    """With more blocks than ComfyUI counts heads, with as many, and with fewer."""
    blocks, heads, head_width = request.param
    kinds: Any = (SD3Transformer2DModel, AutoencoderKL, StableDiffusion3Pipeline)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = kinds[0](
            sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=blocks,
            num_attention_heads=heads, attention_head_dim=head_width,
            joint_attention_dim=2 * WIDTH, caption_projection_dim=heads * head_width,
            pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16, qk_norm="rms_norm",
        )  # fmt: skip
        for name, parameter in transformer.named_parameters():
            if ".norm_" in name:  # all ones, which would hide a mistake
                parameter.data = torch.rand(parameter.shape) + 0.5
        vae = kinds[1](
            sample_size=128, latent_channels=8, block_out_channels=(16, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1, norm_num_groups=8, mid_block_add_attention=False,
            scaling_factor=0.7, shift_factor=0.1,
        )  # fmt: skip
        encoders = [text_encoder(), text_encoder()]
    return kinds[2](
        vae=vae.eval(), transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.5),
        text_encoder=encoders[0], tokenizer=clip_tokenizer(),
        text_encoder_2=encoders[1], tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    for name in ("transformer", "vae", "scheduler"):
        getattr(pipeline, name).save_pretrained(folder / name)
    for end in ("", "_2"):
        names = f"text_encoder{end}", f"tokenizer{end}"
        clip = Clip(getattr(pipeline, names[0]), getattr(pipeline, names[1]))
        save_clip(clip, folder / names[0], folder / names[1], torch.float16)
    return folder


@pytest.fixture(scope="module")
def demo(folder: Path) -> Any:
    with torch.inference_mode():  # as in a node
        return pack_module("nodes.native.demo_networks").load_demo(folder)


@torch.no_grad()
def test_the_transformer_predicts_what_diffusers_predicts(demo: Any, pipeline: Any) -> None:
    x_t, sigmas = noise(3, 8, 16, 16), torch.tensor([0.1, 0.5, 1.0])
    context, pooled = noise(3, 77, 2 * WIDTH), noise(3, 2 * WIDTH)
    velocity = pipeline.transformer(x_t, context, pooled, 1000 * sigmas).sample
    assert velocity.std() > 0.1
    model = demo.model.model
    assert_close(model.diffusion_model(x_t, 1000 * sigmas, context, y=pooled), velocity)
    denoised = model.apply_model(x_t, sigmas, c_crossattn=context, y=pooled)
    assert_close(denoised, x_t - sigmas.view(-1, 1, 1, 1) * velocity)


def encode(pipeline: Any, prompt: str) -> tuple[Tensor, Tensor]:
    """Embeddings and pooled embeddings by transformers, without rows and padding for T5."""
    outputs = []
    for part in ("", "_2"):
        tokenizer, encoder = (
            getattr(pipeline, f"{n}{part}") for n in ("tokenizer", "text_encoder")
        )
        tokens = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt")
        outputs.append(encoder(tokens.input_ids, output_hidden_states=True))
    return (
        torch.cat([output.hidden_states[-2] for output in outputs], -1),
        torch.cat([output.text_embeds for output in outputs], -1),
    )


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_clip_encodes_a_prompt_as_transformers_does(demo: Any, pipeline: Any, prompt: str) -> None:
    tokens = demo.clip.tokenize(prompt)
    for name, tokenizer in (("l", pipeline.tokenizer), ("g", pipeline.tokenizer_2)):
        expected = tokenizer(prompt, padding="max_length", max_length=77).input_ids
        assert [token for token, _ in tokens[name][0]] == expected
    embeddings, pooled = demo.clip.encode_from_tokens(tokens, return_pooled=True)
    assert_close((embeddings, pooled), encode(pipeline, prompt))


@torch.no_grad()
def test_the_vae_decodes_and_encodes_as_diffusers_does(demo: Any, pipeline: Any) -> None:
    vae, latents = pipeline.vae, noise(2, 8, 16, 16)
    pictures = demo.vae.decode(latents)
    assert pictures.shape == (2, 128, 128, 3)
    assert_close(pictures, (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1))
    encoded = demo.vae.encode(pictures)
    assert_close(encoded, vae.encode(pictures.movedim(-1, 1) * 2 - 1).latent_dist.mode())
    scaled = (encoded - vae.config.shift_factor) * vae.config.scaling_factor
    assert_close(demo.model.model.process_latent_in(encoded), scaled)


def test_ksampler_draws_what_the_pipeline_draws(demo: Any, pipeline: Any) -> None:
    """From the same noise, with Euler steps at the same noise levels, which both shift."""
    (empty,) = stock("EmptyLatentImage", width=128, height=128)
    (positive,) = stock("CLIPTextEncode", clip=demo.clip, text=PROMPTS[0])
    (negative,) = stock("CLIPTextEncode", clip=demo.clip, text="")
    (latent,) = stock(
        "KSampler", model=demo.model, positive=positive, negative=negative, latent_image=empty,
        seed=0, steps=5, cfg=4.0, sampler_name="euler", scheduler="simple",
    )  # fmt: skip
    (pictures,) = stock("VAEDecode", samples=latent, vae=demo.vae)
    (embeddings, pooled), (empty_embeddings, empty_pooled) = (
        encode(pipeline, prompt) for prompt in (PROMPTS[0], "")
    )
    start = torch.randn((1, 8, 16, 16), generator=torch.manual_seed(0))
    expected = pipeline(
        prompt_embeds=embeddings, negative_prompt_embeds=empty_embeddings,
        pooled_prompt_embeds=pooled, negative_pooled_prompt_embeds=empty_pooled,
        latents=start, sigmas=[1.0, 0.8, 0.6, 0.4, 0.2], guidance_scale=4.0, height=128, width=128,
        output_type="pt",
    ).images  # fmt: skip
    assert_close(pictures.movedim(-1, 1), expected)
