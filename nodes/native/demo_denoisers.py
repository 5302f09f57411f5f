"""ComfyUI's MODEL from a small denoiser of diffusers.

In all functions ``schedule`` and ``vae`` are the settings of the pipeline's scheduler and VAE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.supported_models
import comfy.utils
from comfy.ldm.modules.diffusionmodules.mmdit import SelfAttention
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import BASE
from torch import Tensor, nn

from .demo_vae import Width


class _SD15(comfy.supported_models.SD15):
    unet_extra_config: dict[str, Any] = {}  # noqa: RUF012 - stock: always 8 heads


def build_unet(
    settings: dict[str, Any],
    weights: dict[str, Tensor],
    schedule: dict[str, Any],
    vae: dict[str, Any],
) -> ModelPatcher:
    """Build Stable Diffusion 1's kind of U-Net from a ``UNet2DConditionModel``."""
    widths, blocks = settings["block_out_channels"], settings["layers_per_block"]
    depths = [int("CrossAttn" in kind) for kind in settings["down_block_types"]]  # per level
    config = _SD15(
        {
            "image_size": settings["sample_size"],
            "in_channels": settings["in_channels"],
            "out_channels": settings["out_channels"],
            "model_channels": widths[0],
            "channel_mult": [Width(width) for width in widths],
            "num_res_blocks": [blocks] * len(widths),
            "transformer_depth": [depth for depth in depths for _ in range(blocks)],
            "transformer_depth_middle": 1,
            "transformer_depth_output": [depth for depth in depths for _ in range(blocks + 1)],
            "context_dim": settings["cross_attention_dim"],
            "num_heads": settings["attention_head_dim"],  # a misnomer in diffusers
            "num_head_channels": -1,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": settings["use_linear_projection"],
            "use_temporal_attention": False,
            "use_checkpoint": False,
            "legacy": False,
            "adm_in_channels": None,
        }
    )
    config.sampling_settings = {
        "beta_schedule": "linear",  # ComfyUI's name for diffusers' scaled_linear
        "linear_start": schedule["beta_start"],
        "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"],
    }
    config.latent_format.scale_factor = vae["scaling_factor"]
    names = comfy.utils.unet_to_diffusers(config.unet_config)

    def set_groups(unet: nn.Module) -> None:
        for layer in unet.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.num_groups = settings["norm_num_groups"]  # stock: always 32

    return _build(config, {names[name]: weight for name, weight in weights.items()}, set_groups)


def build_mmdit(
    settings: dict[str, Any],
    weights: dict[str, Tensor],
    schedule: dict[str, Any],
    vae: dict[str, Any],
) -> ModelPatcher:
    """Build Stable Diffusion 3's kind of transformer from an ``SD3Transformer2DModel``."""
    blocks, width = settings["num_layers"], settings["attention_head_dim"]
    converted: Any = comfy.model_detection.convert_diffusers_mmdit(weights)
    # diffusers stores scale before shift in the last text block. ComfyUI looks for that block by
    # hidden size / 64, which it takes to be both the number of heads and that of blocks.
    mistaken = len(converted["x_embedder.proj.bias"]) // 64
    for block in {mistaken - 1} ^ {blocks - 1}:
        for end in ("weight", "bias"):
            name = f"joint_blocks.{block}.context_block.adaLN_modulation.1.{end}"
            if name in converted:
                converted[name] = comfy.utils.swap_scale_shift(converted[name])
    detected = comfy.model_detection.detect_unet_config(converted, "")
    config = comfy.supported_models.SD3({**detected, "num_blocks": blocks})
    config.sampling_settings = {"shift": schedule["shift"]}
    latents: Any = config.latent_format
    latents.latent_channels = settings["in_channels"]
    latents.scale_factor, latents.shift_factor = vae["scaling_factor"], vae["shift_factor"] or 0.0

    def set_heads(mmdit: nn.Module) -> None:
        for layer in mmdit.modules():
            if isinstance(layer, SelfAttention):  # stock: always 64 wide
                layer.num_heads, layer.head_dim = settings["num_attention_heads"], width
                norms: tuple[Any, ...] = (layer.ln_q, layer.ln_k)
                for norm in norms:
                    norm.weight = nn.Parameter(norm.weight.new_empty(width))

    return _build(config, converted, set_heads)


def _build(
    config: BASE, weights: dict[str, Tensor], correct: Callable[[nn.Module], None]
) -> ModelPatcher:
    """Build the MODEL, with precision and devices as ComfyUI's loaders choose them.

    Args:
        weights: in ComfyUI's names.
        correct: changes what ``config`` cannot express; called before the weights are loaded.
    """
    latents = config.latent_format  # its previews are for the stock VAE: wrong colours here
    latents.latent_rgb_factors = latents.latent_rgb_factors_bias = latents.taesd_decoder_name = None
    management = comfy.model_management
    device = management.get_torch_device()
    offload_device = management.unet_offload_device()
    precisions = list(config.supported_inference_dtypes)
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=precisions,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, precisions))
    model = config.get_model(weights, device=offload_device)
    correct(model.diffusion_model)
    model.diffusion_model.load_state_dict(weights)
    return ModelPatcher(model, load_device=device, offload_device=offload_device)
