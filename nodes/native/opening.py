"""Our model handle for a MODEL, CLIP and VAE of ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...unlearn_core.foundation.finite import non_finite
from ...unlearn_core.models.protocol import ModelInfo
from ..host import memory
from .families import EVALUATION, IMAGE_SIZE
from .fingerprint import fingerprint
from .handle import NativeHandle
from .network import Network
from .schedules import V

PROJECTION = "text_projection.weight"


@torch.inference_mode(False)  # weights that are moved in this mode could not be trained
def open_native(
    model: ModelPatcher, clip: Any, vae: Any = None, image_size: int = 0
) -> NativeHandle:
    """The handle of a MODEL, which is never changed.

    Args:
        image_size: edge of a picture in pixels; 0 for that of the model's family.

    Raises:
        UnsupportedError: the model cannot be trained.
        ValueError: ``image_size`` does not fit the model, or a weight is not finite.
    """
    network = Network(model)
    info = ModelInfo(
        name=_name(network),
        family=network.family.name,
        source=None,
        fingerprint="",
        image_size=image_size or _own_size(network),
        prediction=network.schedule.prediction,
        denoiser_folder="",
        mixed=network.is_half,
        evaluation=vars(network.model.model_config).get(EVALUATION),
    )
    handle = NativeHandle(info, network, clip, vae)
    if info.image_size % handle.size_step:
        raise ValueError(
            f"image_size must be a multiple of {handle.size_step} for {network.family.label}, got "
            f"{image_size}; set it to 0 for {_own_size(network)}"
        )
    memory.load(handle)
    network.make_trainable()
    _refuse_non_finite("model", network.module)
    handle = replace(handle, info=replace(info, fingerprint=fingerprint(network, clip)))
    _refuse_non_finite("clip", clip.load_model().model, unused=_unused_tensors(handle))
    autoencoder = getattr(vae, "first_stage_model", None)
    if isinstance(autoencoder, nn.Module):  # other node packs have VAEs of their own
        _refuse_non_finite("vae", autoencoder)
    return handle


def _unused_tensors(handle: NativeHandle) -> str:
    """The ending of the names of tensors that ComfyUI leaves uninitialized where a file lacks them
    and the model does not need them; empty if the encoded prompts depend on them."""
    inputs = handle.encode_prompts([""]).text_inputs()
    finite = not non_finite((name, row) for name, rows in inputs.items() for row in rows)
    return PROJECTION if finite else ""


def _refuse_non_finite(field: str, module: nn.Module, unused: str = "") -> None:
    """Check all weights where they are, with the LoRAs that are applied to them. This reads each
    once, in less time than one prediction takes.

    Args:
        unused: ending of the names of tensors that are not checked; empty for none.

    Raises:
        ValueError: names the input and the tensor.
    """
    tensors = (each for each in _tensors(module) if not unused or not each[0].endswith(unused))
    if fault := non_finite(tensors):
        raise ValueError(
            f"{field}: it holds {fault}; load another file, or remove the LoRAs before this node"
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module; of a quantized one its stored numbers."""
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            yield name, getattr(tensor, "_qdata", tensor)


def _own_size(network: Network) -> int:
    # Today's ComfyUI answers with None for an attribute that its configuration lacks.
    size = vars(network.model.model_config).get(IMAGE_SIZE, network.family.image_size)
    is_768 = network.family.name == "sd2" and network.schedule.prediction == V
    return 768 if is_768 else size


def _name(network: Network) -> str:
    """The name of the file if the MODEL knows it, as in newer ComfyUIs; otherwise its class."""
    loader: Any = getattr(network.given, "cached_patcher_init", None)
    arguments = loader[1] if loader else ()
    files = [part for part in arguments if isinstance(part, str) and Path(part).suffix]
    return Path(files[0]).stem if files else type(network.model).__name__
