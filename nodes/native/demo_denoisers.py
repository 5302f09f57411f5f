"""ComfyUI's MODEL from a small denoiser of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.supported_models
import comfy.utils
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
    latent_scale: float,
) -> ModelPatcher:
    """Build Stable Diffusion 1's kind of U-Net from a ``UNet2DConditionModel``.

    Args:
        schedule: the settings of the pipeline's scheduler.
        latent_scale: the VAE's ``scaling_factor``.
    """
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
    config.latent_format.scale_factor = latent_scale
    _forget_previews(config)
    names = comfy.utils.unet_to_diffusers(config.unet_config)

    def set_groups(unet: nn.Module) -> None:
        for layer in unet.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.num_groups = settings["norm_num_groups"]  # stock: always 32

    return _build(config, {names[name]: weight for name, weight in weights.items()}, set_groups)


def _forget_previews(config: BASE) -> None:
    """Remove what turns the stock VAE's latents into colours; these latents are of another VAE."""
    config.latent_format.latent_rgb_factors = None
    config.latent_format.latent_rgb_factors_bias = None
    config.latent_format.taesd_decoder_name = None


def _build(
    config: BASE, weights: dict[str, Tensor], correct: Callable[[nn.Module], None]
) -> ModelPatcher:
    """Build the MODEL, with precision and devices as ComfyUI's loaders choose them.

    Args:
        weights: in ComfyUI's names.
        correct: changes what ``config`` cannot express; called before the weights are loaded.
    """
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
