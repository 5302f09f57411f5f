"""The bundled demo models in ComfyUI's own classes, built from their diffusers folders.

ComfyUI's loaders recognise a network by its full-size shapes, so the small ones are built here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...unlearn_core.foundation.json_file import JsonError, read_object
from .demo_clip import build_clip, build_two_clips
from .demo_denoisers import build_mmdit, build_unet
from .demo_vae import build_vae
from .families import EVALUATION, IMAGE_SIZE


class DemoNetworks(NamedTuple):
    """The inputs of stock nodes: MODEL of KSampler, CLIP of CLIPTextEncode, VAE of VAEDecode."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE


@torch.inference_mode(False)  # nodes run in inference mode; weights loaded in it cannot be trained
def load_demo(folder: Path) -> DemoNetworks:
    """Build the networks of a pipeline folder: a small Stable Diffusion 1, or a small Stable
    Diffusion 3 without T5."""
    schedule = _settings(folder / "scheduler" / "scheduler_config.json")
    settings, weights = _part(folder / "vae")
    text = _part(folder / "text_encoder")
    if (folder / "transformer").is_dir():
        model = build_mmdit(*_part(folder / "transformer"), schedule, settings)
        clip = build_two_clips(text, _part(folder / "text_encoder_2"))
    else:
        model = build_unet(*_part(folder / "unet"), schedule, settings)
        clip = build_clip(text)
    # ComfyUI's configurations do not contain these; From ComfyUI reads them.
    setattr(model.model.model_config, IMAGE_SIZE, int(settings["sample_size"]))
    setattr(model.model.model_config, EVALUATION, folder / "evaluation")
    return DemoNetworks(model, clip, build_vae(settings, weights))


def _part(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the weights of one part of a pipeline."""
    (file,) = folder.glob("*.safetensors")
    weights: Any = comfy.utils.load_torch_file(str(file), safe_load=True)
    return _settings(folder / "config.json"), weights


def _settings(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except JsonError as error:
        raise ValueError(
            f"model: {file.name!r} of the bundled {file.parent.parent.name!r} {error}; install "
            "Unlearn again"
        ) from None
