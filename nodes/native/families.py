"""The architectures of ComfyUI: names of their layers, usual settings, and unsupported kinds.

The layers are described by patterns of module names within ``diffusion_model``, because no two
architectures name them alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from comfy.model_base import BaseModel

from ...unlearn_core.models.errors import UnsupportedError
from ...unlearn_core.models.layers import (
    LORA,
    LORA_ATTENTION,
    LORA_SELF_ATTENTION,
    LORA_TEXT_PATH,
    LORA_XATTN,
)
from ...unlearn_core.models.protocol import POOLED, TOKENS

NOTHING = r"(?!)"
IMAGE_SIZE = "unlearn_image_size"
EVALUATION = "unlearn_evaluation"
"""Attributes of the configuration of a demo model: edge of a picture in pixels, and the folder of
its judge and CLIP."""
# The layers that turn the timestep into scales and shifts are in no scope, as in the core.
NO_MODULATION = r"(?!.*([_.]mod[.A-Z]|modulation|norm\d\.linear))"


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: as in ``ModelInfo.family``.
        label: the name for people.
        blocks: the linear layers of scope ``lora``: all those of the transformer blocks.
        text: the layers that only text tokens use.
        attention: all attention layers.
        projections: the layers that read the encoded prompt directly, and the name of their input
            in ``Conditioning.text_inputs``.
        cross: the layers of cross-attention; ``NOTHING`` if text and picture share attention.
        default_scope: the scope that ``auto`` means.
        image_size: edge of a picture in pixels.
        downscale: the ratio of a picture's edge to its latent's.
        steps, guidance_scale, sampler, scheduler: usual values for drawing.
    """

    name: str
    label: str
    blocks: str
    text: str
    attention: str
    projections: tuple[tuple[str, str], ...] = ()
    cross: str = NOTHING
    default_scope: str = LORA_TEXT_PATH
    image_size: int = 1024
    downscale: int = 8
    steps: int = 20
    guidance_scale: float = 4.0
    sampler: str = "euler"
    scheduler: str = "simple"

    @property
    def scopes(self) -> dict[str, str]:
        """Low-rank scope -> pattern of the names of its layers."""
        return {
            LORA: self.blocks,
            LORA_XATTN: self.cross,
            LORA_TEXT_PATH: self.text,
            LORA_ATTENTION: self.attention,
            LORA_SELF_ATTENTION: self._self_attention,
        }

    @property
    def _self_attention(self) -> str:
        return NOTHING if self.cross == NOTHING else rf"(?!({self.cross})$)({self.attention})"


# The layers that kohya's trainer adapts; in the U-Nets, these names are those of diffusers too.
_UNET_LAYERS = r"to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2"
_UNET = Family(
    name="stable-diffusion",
    label="Stable Diffusion",
    blocks=rf".*\.({_UNET_LAYERS})",
    text=r".*\.attn2\.to_[kv]",
    projections=((r".*\.attn2\.to_[kv]", TOKENS),),
    attention=r".*\.attn[12]\.(to_[qkv]|to_out\.0)",
    cross=r".*\.attn2\.(to_[qkv]|to_out\.0)",
    default_scope=LORA_XATTN,
    image_size=512,
    steps=25,
    guidance_scale=7.5,
    sampler="dpmpp_2m",
    scheduler="normal",
)
SD1 = replace(_UNET, name="sd1", label="Stable Diffusion 1.x")
SD2 = replace(_UNET, name="sd2", label="Stable Diffusion 2.x")
SDXL = replace(_UNET, name="sdxl", label="Stable Diffusion XL", image_size=1024)
UNETS = tuple(family.name for family in (_UNET, SD1, SD2, SDXL))

_FLUX = Family(
    name="flux",
    label="Flux",
    blocks=NO_MODULATION + r"(double_blocks|single_blocks)\..*",
    text=r"double_blocks\.\d+\.txt_(attn|mlp)\..*|txt_in|vector_in\..*",
    attention=r"double_blocks\.\d+\.(img|txt)_attn\..*|single_blocks\.\d+\.linear[12]",
    guidance_scale=1.0,
)
_LUMINA = Family(
    name="lumina2",
    label="Lumina 2",
    blocks=NO_MODULATION + r"(layers|noise_refiner|context_refiner)\..*",
    text=r"context_refiner\..*|cap_embedder\.1",
    attention=r".*\.attention\.(qkv|out)",
    steps=30,
    sampler="res_multistep",
)

_COSMOS = Family(
    name="cosmos-predict2",
    label="Cosmos Predict 2",
    blocks=NO_MODULATION + r"blocks\..*",
    text=r"blocks\.\d+\.cross_attn\.[kv]_proj",
    attention=r"blocks\.\d+\.(self_attn|cross_attn)\..*",
    cross=r"blocks\.\d+\.cross_attn\..*",
    default_scope=LORA_XATTN,
    steps=35,
    scheduler="karras",
)

BY_CLASS: dict[str, Family] = {
    "SDXL": SDXL,
    "Flux": _FLUX,
    "Flux2": replace(_FLUX, name="flux2", label="Flux 2", downscale=16),
    "Chroma": replace(
        _FLUX, name="chroma", label="Chroma", steps=26, guidance_scale=4.0, scheduler="beta"
    ),
    "ChromaRadiance": replace(
        _FLUX, name="chroma-radiance", label="Chroma Radiance", downscale=1, steps=26,
        guidance_scale=4.0, scheduler="beta",
    ),
    "HunyuanImage21": Family(
        name="hunyuan-image",
        label="HunyuanImage 2.1",
        blocks=_FLUX.blocks,
        text=r"double_blocks\.\d+\.txt_(attn|mlp)\..*|txt_in\..*|byt5_in\..*",
        attention=_FLUX.attention,
        image_size=2048,
        downscale=32,
        guidance_scale=3.5,
    ),
    "SD3": Family(
        name="sd3",
        label="Stable Diffusion 3",
        blocks=NO_MODULATION + r"joint_blocks\..*",
        text=r"joint_blocks\.\d+\.context_block\.(attn|mlp)\..*|context_embedder|y_embedder\..*",
        attention=r".*\.attn2?\.(qkv|proj)",
        projections=((r"context_embedder", TOKENS), (r"y_embedder\.mlp\.0", POOLED)),
        steps=28,
        guidance_scale=4.5,
        scheduler="sgm_uniform",
    ),
    "AuraFlow": Family(
        name="auraflow",
        label="AuraFlow",
        blocks=NO_MODULATION + r"(double_layers|single_layers)\..*",
        text=r"double_layers\.\d+\.(attn\.w1[qkvo]|mlpC\..*)|cond_seq_linear",
        attention=r".*\.attn\.w[12][qkvo]",
        steps=25,
        guidance_scale=3.5,
    ),
    "PixArt": Family(
        name="pixart",
        label="PixArt",
        blocks=NO_MODULATION + r"blocks\..*",
        text=r"blocks\.\d+\.cross_attn\.kv_linear|y_embedder\.y_proj\..*",
        attention=r"blocks\.\d+\.(attn|cross_attn)\..*",
        cross=r"blocks\.\d+\.cross_attn\..*",
        default_scope=LORA_XATTN,
        guidance_scale=4.5,
    ),
    "HunyuanDiT": Family(
        name="hunyuan-dit",
        label="Hunyuan-DiT",
        blocks=NO_MODULATION + r"blocks\..*",
        text=r"blocks\.\d+\.attn2\.kv_proj|mlp_t5\..*",
        attention=r"blocks\.\d+\.attn[12]\..*",
        cross=r"blocks\.\d+\.attn2\..*",
        default_scope=LORA_XATTN,
        guidance_scale=6.0,
    ),
    "Lumina2": _LUMINA,
    "HiDream": Family(
        name="hidream",
        label="HiDream",
        blocks=NO_MODULATION + r"(double_stream_blocks|single_stream_blocks)\..*",
        text=r"double_stream_blocks\.\d+\.block\.(attn1\.to_(q|k|v|out)_t|ff_t\..*)"
        r"|caption_projection\..*",
        attention=r".*\.attn1\.to_.*",
        steps=50,
        guidance_scale=5.0,
    ),
    "Omnigen2": Family(
        name="omnigen2",
        label="OmniGen 2",
        blocks=NO_MODULATION + r"(layers|noise_refiner|context_refiner)\..*",
        text=r"context_refiner\..*|time_caption_embed\.caption_embedder\.1",
        attention=r".*\.attn\.to_.*",
        guidance_scale=5.0,
    ),
    "QwenImage": Family(
        name="qwen-image",
        label="Qwen-Image",
        blocks=NO_MODULATION + r"transformer_blocks\..*",
        text=r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|txt_mlp\..*)|txt_in",
        attention=r"transformer_blocks\.\d+\.attn\..*",
        guidance_scale=2.5,
    ),
    "CosmosPredict2": _COSMOS,
    "Anima": replace(
        _COSMOS, name="anima", label="Anima", text=rf"{_COSMOS.text}|llm_adapter\..*", steps=30,
        scheduler="simple",
    ),
}  # fmt: skip
"""By the name of ComfyUI's class, because older versions lack some of the classes."""

Z_IMAGE = replace(
    _LUMINA, name="z-image", label="Z-Image", steps=9, guidance_scale=1.0
)  # the published model is distilled to few steps without guidance

# A transformer that is not listed: all linear layers in lists of blocks, the rest by usual names.
_IN_BLOCKS = r"\w+\.\d+\..*"
OTHER = Family(
    name="transformer",
    label="another transformer",
    blocks=NO_MODULATION + _IN_BLOCKS,
    text=r".*(txt|text|context|caption|add_[qkv]_proj|to_add_out|cross_attn\.[kv]).*",
    attention=rf"{_IN_BLOCKS}(attn|attention).*",
    cross=rf"{_IN_BLOCKS}(cross_attn|crossattn|attn2)\..*",
    default_scope=LORA_ATTENTION,
)

# Image models whose latents have the time axis of a video model's.
OTHERS_WITH_TIME_AXIS = ("Krea2", "JoyImage", "Kandinsky5Image")

VIDEO = "a video model"
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("SVD_img2vid", "SV3D_u", "SV3D_p", "GenmoMochi", "LTXV", "LTXAV", "HunyuanVideo",
         "HunyuanVideo15", "CosmosVideo", "WAN21", "WAN22", "Kandinsky5", "CogVideoX", "MiniMaxH3"),
        VIDEO,
    ),
    **dict.fromkeys(
        ("StableAudio1", "StableAudio3", "ACEStep", "ACEStep15", "MiniMaxMusic3"),
        "an audio model",
    ),
    **dict.fromkeys(
        ("Hunyuan3Dv2", "Hunyuan3Dv2_1", "Stable_Zero123", "Trellis2", "TripoSplat"),
        "a 3-D model",
    ),
    **dict.fromkeys(
        ("SD_X4Upscaler", "SDXLRefiner", "HunyuanImage21Refiner", "Lotus", "SeedVR2", "PiD",
         "DepthAnything3", "RT_DETR_v4", "SAM3"),
        "a model that improves or analyses pictures instead of drawing from a prompt",
    ),
    **dict.fromkeys(
        ("SD15_instructpix2pix", "SDXL_instructpix2pix"),
        "a model that edits pictures instead of drawing from a prompt",
    ),
    **dict.fromkeys(("StableCascade_C", "StableCascade_B"), "one of the two stages of a cascade"),
}  # fmt: skip


def family_of(model: BaseModel) -> Family:
    """The family of a model.

    Raises:
        UnsupportedError: it does not draw single pictures from a prompt.
    """
    names = [part.__name__ for part in type(model).__mro__]
    for name in names:
        if name in REFUSED:
            raise UnsupportedError(
                f"model must draw pictures from a prompt, got {names[0]}, {REFUSED[name]}; link "
                "the MODEL of an image model"
            )
        if name in BY_CLASS:
            return _variant(BY_CLASS[name], model)
        if name in OTHERS_WITH_TIME_AXIS:
            return replace(OTHER, label=f"{OTHER.label}, {names[0]}")
    dimensions = model.latent_format.latent_dimensions
    if dimensions != 2:
        kind = VIDEO if dimensions == 3 else "an audio or 3-D model"
        raise UnsupportedError(
            f"model must draw pictures from a prompt, got {names[0]}, {kind}; link the MODEL of "
            "an image model"
        )
    if type(model.diffusion_model).__name__ == "UNetModel":
        width = model.model_config.unet_config.get("context_dim")
        return {768: SD1, 1024: SD2}.get(width, _UNET)
    return replace(OTHER, label=f"{OTHER.label}, {names[0]}")


def _variant(family: Family, model: BaseModel) -> Family:
    config = model.model_config
    if family.name == "lumina2" and type(config).__name__ == "ZImage":
        return Z_IMAGE
    if family.name == "flux" and not config.unet_config.get("guidance_embed", True):
        return replace(family, label="Flux schnell", steps=4)
    return family


def layers_in(family: Family, names: Iterable[str], scope: str) -> list[str]:
    """The layers among ``names`` that a low-rank scope contains, in their given order; none for
    another scope."""
    pattern = re.compile(family.scopes.get(scope, NOTHING))
    return [name for name in names if pattern.fullmatch(name)]
