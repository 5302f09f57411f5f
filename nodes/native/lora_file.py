"""The trained change as a LoRA file, under the names of several programs."""

from __future__ import annotations

import torch
from torch import Tensor

from ...unlearn_core.models.errors import UnsupportedError
from .adapters import LowRank
from .families import UNETS
from .handle import NativeHandle
from .names import diffusers_parts, unet_names

COMFYUI, KOHYA, DIFFUSERS = "comfyui", "kohya", "diffusers"
NAMES = (COMFYUI, KOHYA, DIFFUSERS)
"""``comfyui``: ComfyUI's own names, for any architecture. ``kohya``: those of kohya's trainer,
which most programs read. ``diffusers``: those of diffusers, ai-toolkit and SimpleTuner, for the
transformers that diffusers has."""


def lora_state_dict(handle: NativeHandle, names: str = COMFYUI) -> dict[str, Tensor]:
    """The trained layers as the tensors of a LoRA file, on the CPU. With ``COMFYUI`` this is also
    the value of a link of type ``LORA_MODEL``.

    Args:
        names: one of ``NAMES``.

    Raises:
        UnsupportedError: the architecture has no such names.
        ValueError: nothing was trained.
    """
    if names not in NAMES:
        raise ValueError(f"names must be one of {', '.join(NAMES)}, got {names!r}")
    if not handle.adapters:
        raise ValueError("unlearned: the model has no trained layers, so there is no LoRA to save")
    tensors: dict[str, Tensor] = {}
    for name, layer in handle.adapters.layers.items():
        if isinstance(layer, LowRank):
            tensors.update(_low_rank(handle, name, layer, names))
        else:
            tensors[f"{_key(handle, name, names)}.diff"] = handle.change(name)
    return {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}


def has_names(handle: NativeHandle, names: str) -> bool:
    """Whether the model's architecture has the names."""
    return names != DIFFUSERS or all(
        _parts(handle, name, len(layer.up)) for name, layer in handle.adapters.low_rank.items()
    )


def _low_rank(handle: NativeHandle, name: str, layer: LowRank, names: str) -> dict[str, Tensor]:
    if names != DIFFUSERS:
        key = _key(handle, name, names)
        return {
            f"{key}.lora_down.weight": layer.down,
            f"{key}.lora_up.weight": layer.up,
            f"{key}.alpha": torch.tensor(layer.alpha),
        }
    tensors = {}
    for key, rows in _required_parts(handle, name, len(layer.up)):
        tensors[f"{key}.lora_A.weight"] = layer.down
        tensors[f"{key}.lora_B.weight"] = layer.up[rows] * layer.scale
    return tensors


def _key(handle: NativeHandle, name: str, names: str) -> str:
    if names == COMFYUI:
        return f"diffusion_model.{name}"
    if names == DIFFUSERS:
        return _required_parts(handle, name, len(handle.change(name)))[0][0]
    theirs = {} if handle.info.family == "sdxl" else unet_names(handle.network.model)
    return f"lora_unet_{theirs.get(name, name)}".replace(".", "_")


def _required_parts(handle: NativeHandle, name: str, rows: int) -> list[tuple[str, slice]]:
    parts = _parts(handle, name, rows)
    if not parts:
        raise UnsupportedError(
            f"names must be {COMFYUI!r} or {KOHYA!r} for {handle.info.name!r}, got {DIFFUSERS!r}: "
            "diffusers has no such layers"
        )
    return parts


def _parts(handle: NativeHandle, name: str, rows: int) -> list[tuple[str, slice]]:
    """Keys of diffusers, and the rows of the fused layer that each is."""
    if handle.network.family.name in UNETS:
        return []
    # ComfyUI reads these under its own prefix, where the transformer's files have none.
    prefix = "diffusion_model" if handle.network.family.name == "z-image" else "transformer"
    return [
        (f"{prefix}.{part.name}", slice(part.start, part.start + part.length))
        for part in diffusers_parts(handle.network.model, name, rows)
    ]
