"""Load Stable Diffusion 3 and Flux from diffusers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from . import autoencoder
from .flow import PATCH, FlowHandle, schedule_of
from .flow_text import T5, FluxText, StableDiffusion3Text
from .folder_check import edge_of
from .folder_parts import (
    STATISTICS,
    read_clip,
    read_component,
    read_denoiser,
    read_text_encoder,
    read_vae,
)
from .folder_source import FolderSource
from .noise_settings import read_flow_scheduler
from .protocol import ModelHandle

T5_LENGTH = {"sd3": 256, "flux": 512, "schnell": 256}  # tokens, as in the published pipelines


def stable_diffusion_3(source: FolderSource) -> ModelHandle:
    from diffusers import SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection

    from .stable_diffusion_3 import StableDiffusion3Handle

    folder, device = source.folder, source.device
    config = read_flow_scheduler(folder, source.index)
    mixed = source.options.is_mixed(True, device)
    transformer = read_denoiser(SD3Transformer2DModel, folder, "transformer", device, mixed=mixed)
    clips = tuple(
        read_clip(CLIPTextModelWithProjection, folder, suffix, device, mixed=mixed)
        for suffix in ("", "_2")
    )
    t5 = None
    if source.index.get("text_encoder_3", [None])[0] is not None:
        t5 = _t5(folder, "_3", device, mixed, T5_LENGTH["sd3"])
    text = StableDiffusion3Text(clips, t5, int(transformer.config["joint_attention_dim"]))
    edge = transformer.config["sample_size"]
    return _handle(
        StableDiffusion3Handle, "sd3", source, config, transformer, text, edge, mixed=mixed
    )


def flux(source: FolderSource) -> ModelHandle:
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel

    from .flux import FluxHandle

    folder, device = source.folder, source.device
    config = read_flow_scheduler(folder, source.index)
    mixed = source.options.is_mixed(True, device)
    transformer = read_denoiser(FluxTransformer2DModel, folder, "transformer", device, mixed=mixed)
    kind = "flux" if transformer.config["guidance_embeds"] else "schnell"
    clips = (read_clip(CLIPTextModel, folder, "", device, mixed=mixed),)
    text = FluxText(clips, _t5(folder, "_2", device, mixed, T5_LENGTH[kind]))
    return _handle(FluxHandle, "flux", source, config, transformer, text, None, mixed=mixed)


def _t5(folder: Path, suffix: str, device: torch.device, mixed: bool, length: int) -> T5:
    from transformers import AutoTokenizer, T5EncoderModel

    encoder = read_text_encoder(T5EncoderModel, folder, suffix, device, mixed=mixed)
    return T5(encoder, read_component(AutoTokenizer, folder, f"tokenizer{suffix}"), length)


def _handle(
    kind: type[FlowHandle],
    family: str,
    source: FolderSource,
    config: dict[str, Any],
    transformer: Any,
    text: Any,
    edge: object,
    *,
    mixed: bool,
) -> ModelHandle:
    """Create a handle with the remaining parts of the folder.

    Args:
        config: the settings of the scheduler.
        edge: ``sample_size`` of the transformer; None if the pictures have the autoencoder's.
    """
    latents = transformer.config["in_channels"] // (PATCH**2 if family == "flux" else 1)
    vae = read_vae(source.folder, source.index, latents, transformer.device, STATISTICS)
    size = source.options.image_size or _own_size(source.folder, vae, edge)
    tokens = (size // autoencoder.scale(vae) // PATCH) ** 2
    # A model without guidance is distilled to few steps, which lie at all noise levels.
    few_steps = family == "flux" and not transformer.config["guidance_embeds"]
    schedule = schedule_of(config, tokens, logit_normal=not few_steps)
    return kind(
        info=source.info(family, size, "flow", "transformer", mixed=mixed),
        denoiser=transformer,
        base=transformer,
        schedule=schedule,
        scheduler_config=config,
        vae=vae,
        text=text,
    )


def _own_size(folder: Path, vae: Any, edge: object) -> int:
    if edge is None:
        return edge_of(vae.config["sample_size"], f"sample_size of {folder.name}/vae/config.json")
    name = f"sample_size of {folder.name}/transformer/config.json"
    return edge_of(edge, name) * autoencoder.scale(vae)
