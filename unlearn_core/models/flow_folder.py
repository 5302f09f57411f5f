"""Load Stable Diffusion 3 and Flux from diffusers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from . import autoencoder
from .errors import ModelError
from .flow import PATCH, FlowHandle, schedule_of
from .flow_text import T5, FluxText, StableDiffusion3Text
from .folder_parts import read_component, read_denoiser, read_vae, read_weights
from .options import LoadOptions
from .protocol import ModelHandle, ModelInfo
from .text import Clip
from .versions import dtype_argument

T5_LENGTH = {"sd3": 256, "flux": 512, "schnell": 256}  # tokens, as in the published pipelines


def stable_diffusion_3(
    folder: Path,
    index: dict[str, Any],
    fingerprint: str,
    device: torch.device,
    options: LoadOptions,
) -> ModelHandle:
    from diffusers import SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection

    from .stable_diffusion_3 import StableDiffusion3Handle

    mixed = options.is_mixed(True, device)
    transformer = read_denoiser(SD3Transformer2DModel, folder, "transformer", device, mixed=mixed)
    clips = tuple(
        _clip(CLIPTextModelWithProjection, folder, suffix, device, mixed) for suffix in ("", "_2")
    )
    t5 = None
    if index.get("text_encoder_3", [None])[0] is not None:
        t5 = _t5(folder, "_3", device, mixed, T5_LENGTH["sd3"])
    text = StableDiffusion3Text(clips, t5, int(transformer.config["joint_attention_dim"]))
    edge = int(transformer.config["sample_size"])
    return _handle(
        StableDiffusion3Handle, "sd3", folder, fingerprint, transformer, text, edge, options, mixed
    )


def flux(
    folder: Path,
    index: dict[str, Any],
    fingerprint: str,
    device: torch.device,
    options: LoadOptions,
) -> ModelHandle:
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel

    from .flux import FluxHandle

    mixed = options.is_mixed(True, device)
    transformer = read_denoiser(FluxTransformer2DModel, folder, "transformer", device, mixed=mixed)
    kind = "flux" if transformer.config["guidance_embeds"] else "schnell"
    clips = (_clip(CLIPTextModel, folder, "", device, mixed),)
    text = FluxText(clips, _t5(folder, "_2", device, mixed, T5_LENGTH[kind]))
    return _handle(FluxHandle, "flux", folder, fingerprint, transformer, text, None, options, mixed)


def _clip(loader: Any, folder: Path, suffix: str, device: torch.device, mixed: bool) -> Clip:
    from transformers import CLIPTokenizer

    encoder = read_weights(loader, folder, f"text_encoder{suffix}", device, **_text_dtype(mixed))
    return Clip(encoder, read_component(CLIPTokenizer, folder, f"tokenizer{suffix}"))


def _t5(folder: Path, suffix: str, device: torch.device, mixed: bool, length: int) -> T5:
    from transformers import AutoTokenizer, T5EncoderModel

    name = f"text_encoder{suffix}"
    encoder = read_weights(T5EncoderModel, folder, name, device, **_text_dtype(mixed))
    return T5(encoder, read_component(AutoTokenizer, folder, f"tokenizer{suffix}"), length)


def _text_dtype(mixed: bool) -> dict[str, Any]:
    return {dtype_argument(): "auto" if mixed else torch.float32}


def _handle(
    kind: type[FlowHandle],
    family: str,
    folder: Path,
    fingerprint: str,
    transformer: Any,
    text: Any,
    edge: int | None,
    options: LoadOptions,
    mixed: bool,
) -> ModelHandle:
    """Create a handle with the remaining parts of the folder.

    Args:
        edge: of a latent, from the transformer's settings; if they do not contain it, the size of
            the pictures is the autoencoder's.
    """
    vae = read_vae(folder, transformer.device)
    own = int(vae.config["sample_size"]) if edge is None else edge * autoencoder.scale(vae)
    size = options.image_size or own
    config = _scheduler(folder)
    tokens = (size // autoencoder.scale(vae) // PATCH) ** 2
    # A model without guidance is distilled to few steps, which lie at all noise levels.
    few_steps = family == "flux" and not transformer.config["guidance_embeds"]
    schedule = schedule_of(config, tokens, logit_normal=not few_steps)
    return kind(
        info=ModelInfo(
            folder.name, family, folder, fingerprint, size, "flow", "transformer", mixed
        ),
        denoiser=transformer,
        base=transformer,
        schedule=schedule,
        scheduler_config=config,
        vae=vae,
        text=text,
    )


def _scheduler(folder: Path) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    try:
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder / "scheduler", local_files_only=True
        )
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"model: {folder.name}/scheduler cannot be loaded: {error}") from error
    return dict(scheduler.config)
