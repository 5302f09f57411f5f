"""The Stable Diffusion families that can be loaded from a single file: their architecture and how
they are recognized.

The settings of the components are those of the published models' diffusers repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNET = "model.diffusion_model."

_CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
# The file's 24th layer is omitted: the model was trained on the output of the 23rd.
_CLIP_H = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23,
    "num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1024,
}  # fmt: skip
_CLIP_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
_FOUR_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
_SCHEDULER = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False,
    "steps_offset": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TextPart:
    """One text encoder in a single file.

    Attributes:
        prefix: the prefix of its keys.
        open_clip: whether the keys are in open_clip's layout instead of transformers'.
        config: arguments of transformers' ``CLIPTextConfig``.
        pad_token: the token that pads a prompt to 77 tokens.
    """

    prefix: str
    open_clip: bool
    config: Mapping[str, Any]
    pad_token: str


@dataclass(frozen=True)
class Family:
    """The architecture of a family, and its names in other programs.

    Attributes:
        name: ``"sd1"``, ``"sd2"`` or ``"sdxl"``.
        label: the name for people.
        context: width of the text embeddings that the U-Net attends to; together with ``pooled`` it
            identifies the family.
        pooled: width of SDXL's additional input (pooled text and sizes), or None.
        image_size: edge of the training pictures in pixels.
        head_channels: width of an attention head, or None for always 8 heads.
        unet, vae, scheduler: settings of diffusers' classes.
        text: the text encoders.
        architecture: by the ``modelspec.architecture`` convention.
        base_version: by kohya's ``ss_base_model_version`` convention.
    """

    name: str
    label: str
    context: int
    pooled: int | None
    image_size: int
    head_channels: int | None
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    text: tuple[TextPart, ...]
    architecture: str
    base_version: str

    def own_size(self, prediction: str) -> int:
        """Edge of the training pictures in pixels. A 2.x model that predicts noise is the base
        model, trained at 512 px."""
        return 512 if self.name == "sd2" and prediction == "epsilon" else self.image_size


FAMILIES = (
    Family(
        name="sd1",
        label="Stable Diffusion 1.x",
        context=768,
        pooled=None,
        image_size=512,
        head_channels=None,
        unet={**_FOUR_BLOCKS, "cross_attention_dim": 768, "attention_head_dim": 8},
        vae={**_VAE, "scaling_factor": 0.18215},
        scheduler=_SCHEDULER,
        text=(TextPart("cond_stage_model.transformer.", False, _CLIP_L, "<|endoftext|>"),),
        architecture="stable-diffusion-v1",
        base_version="sd_v1",
    ),
    Family(
        name="sd2",
        label="Stable Diffusion 2.x",
        context=1024,
        pooled=None,
        image_size=768,
        head_channels=64,
        unet={**_FOUR_BLOCKS, "cross_attention_dim": 1024, "use_linear_projection": True},
        vae={**_VAE, "scaling_factor": 0.18215},
        scheduler=_SCHEDULER,
        text=(TextPart("cond_stage_model.model.", True, _CLIP_H, "!"),),
        architecture="stable-diffusion-v2",
        base_version="sd_v2",
    ),
    Family(
        name="sdxl",
        label="Stable Diffusion XL",
        context=2048,
        pooled=2816,
        image_size=1024,
        head_channels=64,
        unet={
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "layers_per_block": 2,
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae={**_VAE, "scaling_factor": 0.13025},
        scheduler=_SCHEDULER,
        text=(
            TextPart("conditioner.embedders.0.transformer.", False, _CLIP_L, "<|endoftext|>"),
            TextPart("conditioner.embedders.1.model.", True, _CLIP_G, "!"),
        ),
        architecture="stable-diffusion-xl-v1-base",
        base_version="sdxl_base_v1-0",
    ),
)

SUPPORTED = "Stable Diffusion 1.x, 2.x or SDXL base as one .safetensors file"

# Other kinds of files, by a part of a key that only these contain.
OTHERS = (
    ("lora_", "a LoRA file, which is only an addition to a model"),
    (".hada_w1_", "a LoRA file (LoHa), which is only an addition to a model"),
    (".lokr_w", "a LoRA file (LoKr), which is only an addition to a model"),
    (".oft_", "a LoRA file (OFT), which is only an addition to a model"),
    ("ip_adapter.", "an IP-Adapter"),
    (".lora_A.", "a LoRA file, which is only an addition to a model"),
    (".lora_down.", "a LoRA file, which is only an addition to a model"),
    ("double_blocks.", "a Flux or similar model"),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    ("control_model.", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("motion_modules.", "an AnimateDiff motion module"),
    ("model.diffusion_model.blocks.", "a video or transformer model"),
    ("model.diffusion_model.layers.", "a transformer model"),
    ("string_to_param", "a textual inversion embedding"),
    ("emb_params", "a textual inversion embedding"),
    ("clip_g", "a textual inversion embedding"),
    ("first_stage_model.", "a model without a U-Net"),
    ("decoder.up.", "a VAE alone"),
    ("decoder.up_blocks.", "a VAE alone"),
    ("single_transformer_blocks.", "a Flux model in diffusers' layout; choose its complete folder"),
    ("down_blocks.", "a U-Net alone, in diffusers' layout; choose its complete diffusers folder"),
    ("input_blocks.", "a U-Net alone"),
    ("text_model.", "a text encoder alone"),
    ("transformer.resblocks.", "a text encoder alone"),
    ("vision_model.", "a CLIP for pictures"),
    ("encoder.block.", "a text encoder (T5) alone"),
    ("conv_first.", "an upscaler"),
    ("RDB1.", "an upscaler"),
)
