"""Tiny MODELs of ComfyUI's real architectures with random weights, and text encoders for them."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..pack import COMFYUI  # makes ComfyUI's modules importable

# isort: split
import comfy.ldm.flux.model
import comfy.ldm.lumina.model
import comfy.supported_models as supported
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher

assert COMFYUI
CPU = torch.device("cpu")
WIDTH, POOLED = 40, 24  # of the text encoders


@dataclass(frozen=True)
class Tiny:
    """An architecture: its ComfyUI config, and the form of its text encoder's output.

    Attributes:
        more: further outputs of the text encoder, by the number of tokens.
    """

    config: Callable[[], Any]
    latent: tuple[int, int, int] = (16, 8, 8)
    pooled: bool = False
    fixed_length: bool = False
    more: Callable[[int], dict[str, Any]] = lambda _: {}


def _flux() -> Any:
    newer = "txt_ids_dims" in comfy.ldm.flux.model.FluxParams.__dataclass_fields__
    return supported.Flux(dict(
        image_model="flux", in_channels=16, out_channels=16, vec_in_dim=POOLED,
        context_in_dim=WIDTH, hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=2,
        depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10000, patch_size=2, qkv_bias=True,
        guidance_embed=True, **({"txt_ids_dims": []} if newer else {}),
    ))  # fmt: skip


def _sd3() -> Any:
    embedder = {"target": "torch.nn.Linear",
                "params": {"in_features": WIDTH, "out_features": 192}}  # fmt: skip
    return supported.SD3(dict(
        in_channels=16, out_channels=16, pos_embed_scaling_factor=None, depth=3, patch_size=2,
        adm_in_channels=POOLED, input_size=None, pos_embed_max_size=16, num_patches=256,
        qk_norm="rms", context_size=WIDTH, context_embedder_config=embedder,
    ))  # fmt: skip


def _lumina2() -> Any:
    return supported.Lumina2(dict(
        image_model="lumina2", patch_size=2, in_channels=16, dim=96, cap_feat_dim=WIDTH,
        n_layers=2, n_refiner_layers=1, qk_norm=True, n_heads=2, n_kv_heads=1,
        axes_dims=[16, 16, 16], axes_lens=[300, 512, 512], rope_theta=10000.0,
        ffn_dim_multiplier=4.0,
    ))  # fmt: skip


def _z_image() -> Any:
    parameters = inspect.signature(comfy.ldm.lumina.model.NextDiT).parameters
    padded = {"pad_tokens_multiple": 32} if "pad_tokens_multiple" in parameters else {}
    return supported.ZImage(dict(
        image_model="lumina2", patch_size=2, in_channels=16, dim=256, cap_feat_dim=WIDTH,
        n_layers=2, n_refiner_layers=1, qk_norm=True, n_heads=2, n_kv_heads=2,
        axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0,
        ffn_dim_multiplier=8.0 / 3.0, z_image_modulation=True, time_scale=1000.0, **padded,
    ))  # fmt: skip


def _qwen_image() -> Any:
    return supported.QwenImage(dict(
        image_model="qwen_image", in_channels=64, out_channels=16, num_layers=2,
        attention_head_dim=32, num_attention_heads=2, joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
    ))  # fmt: skip


def _unet(**more: Any) -> dict[str, Any]:
    return dict(
        image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1],
        channel_mult=[1, 2], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1],
        transformer_depth_middle=1, context_dim=WIDTH, num_heads=2, num_head_channels=-1,
        use_linear_in_transformer=False, use_spatial_transformer=True, legacy=False,
        adm_in_channels=None, use_temporal_attention=False, **more,
    )  # fmt: skip


def _sd15() -> Any:
    return supported.SD15(_unet())


def _sd21_v() -> Any:
    config = _with_two_heads(supported.SD20({**_unet(), "use_linear_in_transformer": True}))
    config.model_type = lambda *_: ModelType.V_PREDICTION
    return config


def _sdxl() -> Any:
    return _with_two_heads(supported.SDXL({
        **_unet(), "adm_in_channels": POOLED + 6 * 256, "num_classes": "sequential",
        "use_linear_in_transformer": True,
    }))  # fmt: skip


def _with_two_heads(config: Any) -> Any:
    """Undo the class's own heads of 64 channels, which are wider than these networks."""
    config.unet_config.update(num_heads=2, num_head_channels=-1)
    return config


ARCHITECTURES = {
    "flux": Tiny(_flux, pooled=True),
    "sd3": Tiny(_sd3, pooled=True, fixed_length=True),
    "lumina2": Tiny(_lumina2),
    "z-image": Tiny(_z_image),
    "qwen-image": Tiny(_qwen_image),
    "sd15": Tiny(_sd15, (4, 8, 8), fixed_length=True),
    "sd21-v": Tiny(_sd21_v, (4, 8, 8), fixed_length=True),
    "sdxl": Tiny(_sdxl, (4, 8, 8), pooled=True, fixed_length=True),
}


@torch.no_grad()
def fill(network: nn.Module, seed: int = 0) -> None:
    """Random weights: ComfyUI's layers do not initialise themselves."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2:
            spread = 0.7 / math.sqrt(parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        else:
            parameter.fill_(1.0 if name.endswith(("weight", "scale")) else 0.0)
    for buffer in network.buffers():
        if buffer.is_floating_point() and buffer.ndim > 1:
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.02)


def model(
    name: str, dtype: torch.dtype = torch.float32, seed: int = 0, *, inference: bool = True
) -> ModelPatcher:
    """A MODEL of one of ``ARCHITECTURES``; arguments as in ``model_of``."""
    return model_of(ARCHITECTURES[name], dtype, seed, inference=inference)


def model_of(
    tiny: Tiny, dtype: torch.dtype = torch.float32, seed: int = 0, *, inference: bool = True
) -> ModelPatcher:
    """A MODEL as a loader outputs it.

    Args:
        inference: made in inference mode, like ComfyUI's nodes; otherwise its weights require
            gradients, as they do by default.
    """
    with torch.inference_mode(inference):
        config = tiny.config()
        compute = torch.float32 if dtype.itemsize < 2 or dtype == torch.bfloat16 else None
        config.set_inference_dtype(dtype, compute)
        network = config.get_model({}, "", device=CPU)
        fill(network.diffusion_model, seed)
        return ModelPatcher(network, load_device=CPU, offload_device=CPU)


class StandInClip:
    """The interface of ComfyUI's CLIP: each word is one token with a random, but fixed embedding.

    The real encoders of these architectures are language models of several gigabytes.
    """

    def __init__(self, tiny: Tiny) -> None:
        self.tiny = tiny
        self.layer_idx: int | None = None
        self.tokenizer_options: dict[str, Any] = {}
        network = nn.Linear(2, 2)
        fill(network)
        self.patcher = ModelPatcher(network, load_device=CPU, offload_device=CPU)

    def tokenize(self, text: str) -> list[str]:
        return ["<start>", *text.split()]

    def encode_from_tokens_scheduled(self, tokens: list[str]) -> list[list[Any]]:
        padded = [*tokens, *["<end>"] * 16][:16] if self.tiny.fixed_length else tokens
        values = torch.stack([_embedding(token, WIDTH) for token in padded])[None]
        extras: dict[str, Any] = {"pooled_output": None}
        if self.tiny.pooled:
            extras["pooled_output"] = _embedding(" ".join(tokens), POOLED)[None]
        elif not self.tiny.fixed_length:
            extras["attention_mask"] = torch.ones(1, len(padded), dtype=torch.long)
        extras.update(self.tiny.more(len(padded)))
        return [[values, extras]]

    def load_model(self) -> ModelPatcher:
        return self.patcher


def _embedding(text: str, width: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


@dataclass
class TinyVae:
    """The interface of ComfyUI's VAE: a picture is its latent's first channels, 8 x larger."""

    channels: int
    latent_dim: int = 2

    def spacial_compression_encode(self) -> int:
        return 8

    def decode(self, latents: Tensor) -> Tensor:
        frame = latents[:, :, 0] if latents.ndim == 5 else latents
        pixels = frame[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3).sigmoid()
        pixels = pixels.movedim(1, -1)
        return pixels[:, None] if latents.ndim == 5 else pixels

    def encode(self, pixels: Tensor) -> Tensor:
        small = pixels.movedim(-1, 1)[:, :, ::8, ::8].logit(1e-6)
        others = small.new_zeros(len(small), self.channels - 3, *small.shape[2:])
        latents = torch.cat([small, others], 1)
        return latents[:, :, None] if self.latent_dim == 3 else latents
