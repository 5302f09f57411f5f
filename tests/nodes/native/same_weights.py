"""One tiny Stable Diffusion 1.5 twice: a diffusers folder, and MODEL, CLIP and VAE of ComfyUI.

The widths are those that ComfyUI's normalisations of 32 groups need.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from unlearn_core.models.text import clip_tokenizer

from .tiny_networks import CPU

# isort: split
import comfy.diffusers_convert
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models as supported
import comfy.utils
from comfy.model_patcher import ModelPatcher

WIDTH = 16  # of the text encoder
CLIP = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2,
    "num_hidden_layers": 2, "projection_dim": WIDTH,
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0], "transformer_depth_middle": 1,
    "context_dim": WIDTH, "num_heads": 2, "num_head_channels": -1,
    "use_linear_in_transformer": False, "use_spatial_transformer": True, "legacy": False,
    "adm_in_channels": None, "use_temporal_attention": False,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def _build(kind: Any, **options: Any) -> Any:
    """Untyped, because diffusers accepts more than its type annotations allow."""
    return kind(**options)


def write_folder(folder: Path) -> Path:
    """16 x 16 pixels, 4 x 8 x 8 latents."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = _build(
            UNet2DConditionModel,
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
            block_out_channels=(32, 64), attention_head_dim=2, cross_attention_dim=WIDTH,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = _build(
            AutoencoderKL,
            sample_size=16, latent_channels=4, block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
        for name, parameter in unet.named_parameters():
            if ".attn2." in name:  # let the prompt matter in a random model
                parameter.data *= 4
        text_encoder = CLIPTextModel(_build(CLIPTextConfig, **CLIP, eos_token_id=49407))
    scheduler = _build(
        DDIMScheduler,
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipeline = _build(
        StableDiffusionPipeline,
        vae=vae, text_encoder=text_encoder, tokenizer=clip_tokenizer(), unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def as_comfyui(folder: Path) -> tuple[ModelPatcher, Any, Any]:
    """MODEL, CLIP and VAE with the weights of the folder, made in inference mode as by a loader."""
    with torch.inference_mode():
        return _model(folder), _clip(folder), _vae(folder)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def _model(folder: Path) -> ModelPatcher:
    config: Any = supported.SD15(dict(UNET))
    config.unet_config.update(num_heads=2, num_head_channels=-1)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=CPU)
    theirs = _weights(folder / "unet")
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    state = {names[name]: tensor for name, tensor in theirs.items()}
    model.diffusion_model.load_state_dict(state)
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


def _clip(folder: Path) -> Any:
    target = SimpleNamespace(
        params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer
    )
    # By default, ComfyUI keeps text encoders in 16 bits.
    options = {"clip_l_model_config": CLIP, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, model_options=options)
    weights = {
        f"text_model.{name.removeprefix('text_model.')}": tensor  # transformers 5 omits the prefix
        for name, tensor in _weights(folder / "text_encoder").items()
    }
    weights["text_projection.weight"] = torch.eye(WIDTH)
    clip.load_sd(weights)
    return clip


def _vae(folder: Path) -> Any:
    # ComfyUI counts the levels of a decoder from the last of four; this one has two.
    converted = comfy.diffusers_convert.convert_vae_state_dict(_weights(folder / "vae"))
    weights = {
        re.sub(r"decoder\.up\.(\d)", lambda found: f"decoder.up.{int(found[1]) - 2}", name): tensor
        for name, tensor in converted.items()
    }
    config = {"params": {"ddconfig": VAE, "embed_dim": 4}}
    vae: Any = comfy.sd.VAE(weights, config=config)
    vae.downscale_ratio = vae.upscale_ratio = 2
    return vae
