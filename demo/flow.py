"""EmojiCanvas-Flow: a small Stable Diffusion 3 without T5, and its saving."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from demo.autoencoder import Shape
from demo.diffusion import text_config, write_pipeline
from unlearn_core.models.text import END, Clip, clip_tokenizer

SHAPE = Shape(128, 8, (16, 32, 64, 64), shifted=True)  # latents [8, 16, 16]
TEXT_WIDTH = 48  # of each of the two text encoders
LAYERS, HEADS, HEAD_WIDTH = 5, 6, 32
SHIFT = 1.5  # moves the noise levels upwards, less than for the 4,096 tokens of the original
PADDING = END, "!"  # of the two tokenizers, as in Stable Diffusion 3


class FlowDenoiser(nn.Module):
    """The three trained parts as one module, so that one average covers all."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder()
        self.text_encoder_2 = new_text_encoder()
        self.transformer = new_transformer()

    def forward(self, latents: Tensor, sigmas: Tensor, tokens: Tensor) -> Tensor:
        """Velocity [B, 8, 16, 16] at the noise levels ``sigmas`` [B] in 0..1."""
        context, pooled = self.encode(tokens)
        return self.transformer(latents, context, pooled, 1000 * sigmas).sample

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, 77, 2 x width] and pooled embeddings [B, 2 x width] of captions; their
        ``tokens`` [B, 77] are those of the first tokenizer."""
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in (
                (self.text_encoder, tokens),
                (self.text_encoder_2, padded_by_zero(tokens)),
            )
        ]
        return (
            torch.cat([output.hidden_states[-2] for output in outputs], dim=-1),
            torch.cat([output.text_embeds for output in outputs], dim=-1),
        )


def new_text_encoder() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(text_config(TEXT_WIDTH))


def new_transformer() -> SD3Transformer2DModel:
    """A transformer whose blocks are the identity, and whose output is zero, before training."""
    kind: Any = SD3Transformer2DModel  # its type hints are too narrow
    transformer = kind(
        sample_size=16,
        patch_size=2,
        in_channels=SHAPE.latent_channels,
        out_channels=SHAPE.latent_channels,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    outputs = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        outputs += [block.norm1.linear, block.norm1_context.linear]
    for layer in outputs:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def padded_by_zero(tokens: Tensor) -> Tensor:
    """Replace all after the first end token by token 0, "!", the second tokenizer's padding."""
    ends = tokens.eq(49407).int()
    return tokens.masked_fill(ends.cumsum(1) - ends > 0, 0)


def save_flow(model: FlowDenoiser, vae: AutoencoderKL, folder: Path) -> None:
    """Save a Stable Diffusion 3 pipeline folder in diffusers' layout, as fp16 safetensors."""
    parts = copy.deepcopy(model).half().cpu()
    encoders = parts.text_encoder, parts.text_encoder_2
    tokenizers = [clip_tokenizer(padding) for padding in PADDING]
    kind: Any = StableDiffusion3Pipeline  # its type hints are too narrow
    pipeline = kind(
        vae=copy.deepcopy(vae).half().cpu(),
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=parts.transformer,
        scheduler=new_scheduler(),
    )
    write_pipeline(
        pipeline, [Clip(*pair) for pair in zip(encoders, tokenizers, strict=True)], folder
    )
