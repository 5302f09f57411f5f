"""Sizes of the tiny models, in the terms of ComfyUI's own classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.sd1_clip
import comfy.taesd.taesd
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.z_image
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.wan.vae import WanVAE
from torch import nn

LATENT_CHANNELS = 16
TEXT_WIDTH, POOLED_WIDTH = 64, 32


@dataclass(frozen=True)
class Encoder:
    """A text encoder.

    Attributes:
        model: ComfyUI's class.
        name: the encoder's name in ComfyUI's settings of it.
        config: changes of its published sizes; empty for the published ones.
    """

    model: Callable[..., Any]
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """A model's files.

    Attributes:
        architecture: class of ``comfy.supported_models``.
        unet: its settings.
        encoders: file name without ``.safetensors`` -> text encoder.
        vae: file name in ``models`` without ``.safetensors`` -> its network.
    """

    architecture: str
    unet: Mapping[str, Any]
    encoders: Mapping[str, Encoder]
    vae: Mapping[str, Callable[[], nn.Module]]


def _taesd(name: str) -> dict[str, Callable[[], nn.Module]]:
    return {
        f"vae_approx/{name}_encoder": lambda: comfy.taesd.taesd.Encoder(LATENT_CHANNELS),
        f"vae_approx/{name}_decoder": lambda: comfy.taesd.taesd.Decoder(LATENT_CHANNELS),
    }


_LANGUAGE_MODEL = {"hidden_size": TEXT_WIDTH, "intermediate_size": 64, "num_hidden_layers": 3}

# ComfyUI 0.33 requires one more setting, and 0.3.75 does not accept it.
_IS_NEWER = "txt_ids_dims" in FluxParams.__dataclass_fields__
_NEWER_FLUX: dict[str, Any] = {"txt_ids_dims": []} if _IS_NEWER else {}

FLUX = Sizes(
    "Flux",
    dict(
        image_model="flux", in_channels=16, out_channels=16, vec_in_dim=POOLED_WIDTH,
        context_in_dim=TEXT_WIDTH, hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=2,
        depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10000, patch_size=2, qkv_bias=True,
        guidance_embed=True, **_NEWER_FLUX,
    ),
    {
        "flux clip_l": Encoder(comfy.sd1_clip.SDClipModel, "clip_l", {
            "hidden_size": POOLED_WIDTH, "projection_dim": POOLED_WIDTH, "intermediate_size": 64,
            "num_attention_heads": 2, "num_hidden_layers": 2,
        }),
        "flux t5xxl": Encoder(comfy.text_encoders.sd3_clip.T5XXLModel, "t5xxl", {
            "d_model": TEXT_WIDTH, "d_ff": 64, "d_kv": 32, "num_heads": 2, "num_layers": 2,
        }),
    },
    _taesd("taef1"),
)  # fmt: skip

# All sizes are read from the files by ComfyUI's own loaders. The text encoder has its published
# size, and its output is filled up to the width of T5.
SD3 = Sizes(
    "SD3",
    dict(
        in_channels=16, out_channels=16, patch_size=2, input_size=None, depth=2, num_patches=256,
        pos_embed_max_size=16, pos_embed_scaling_factor=None, adm_in_channels=2048, qk_norm="rms",
        context_embedder_config={"target": "torch.nn.Linear",
                                 "params": {"in_features": 4096, "out_features": 128}},
    ),
    {"sd3 clip_l": Encoder(comfy.sd1_clip.SDClipModel, "clip_l")},
    _taesd("taesd3"),
)  # fmt: skip

Z_IMAGE = Sizes(
    "ZImage",
    dict(
        image_model="lumina2", patch_size=2, in_channels=16, dim=256, cap_feat_dim=TEXT_WIDTH,
        n_layers=2, n_refiner_layers=1, qk_norm=True, n_heads=2, n_kv_heads=2,
        axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0,
        ffn_dim_multiplier=8.0 / 3.0, z_image_modulation=True, time_scale=1000.0,
        pad_tokens_multiple=32,
    ),
    {
        "z-image qwen3": Encoder(comfy.text_encoders.z_image.Qwen3_4BModel, "qwen3_4b", {
            **_LANGUAGE_MODEL, "num_attention_heads": 2, "num_key_value_heads": 1,
        }),
    },
    _taesd("taef1"),
)  # fmt: skip

QWEN_IMAGE = Sizes(
    "QwenImage",
    dict(
        image_model="qwen_image", in_channels=64, out_channels=16, num_layers=2,
        attention_head_dim=32, num_attention_heads=2, joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=[8, 12, 12],
    ),
    {
        # ComfyUI recognises this encoder by four heads of keys.
        "qwen-image qwen25": Encoder(
            comfy.text_encoders.qwen_image.Qwen25_7BVLIModel, "qwen25_7b",
            {**_LANGUAGE_MODEL, "num_attention_heads": 4, "num_key_value_heads": 4},
        ),
    },
    {"vae/qwen-image": lambda: WanVAE(
        dim=8, z_dim=LATENT_CHANNELS, temperal_downsample=[False, True, True])},
)  # fmt: skip

MODELS = {"flux": FLUX, "sd3": SD3, "z-image": Z_IMAGE, "qwen-image": QWEN_IMAGE}
