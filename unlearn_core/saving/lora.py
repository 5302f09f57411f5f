"""Save the change by unlearning as a LoRA file. Programs add it to the original model, at any
strength.

For U-Nets the names are those of kohya's trainer. For Stable Diffusion 3 and Flux they are those of
diffusers, which ComfyUI reads too.

A file contains only low-rank factors, and only of layers that every program reads. Biases and
normalizations, which diffusers refuses, are left out, and so are the first and the last layers of a
U-Net and its embeddings of the time, which kohya's trainer has no names for. On the demo model,
cross-attention without its biases has 99.5 % of the effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..foundation.atomic import appearing, refuse_existing
from ..foundation.finite import kind_of
from ..foundation.progress import EXTRACTING, Progress
from ..foundation.safetensors_file import DTYPES, write_converted
from ..models.families import UNET
from ..models.low_rank import truncated_svd
from ..models.protocol import LoraLayer
from ..models.single_file import ldm_names, read_checkpoint, unet_config
from ..unlearning.results import UnlearnedModel
from .metadata import lora_metadata

PREFIX = "lora_unet_"
JOINT_FAMILIES = ("sd3", "flux")
UNET_BLOCKS = re.compile(r"(.*\.)?(attentions|resnets|downsamplers|upsamplers)\.\d+\..*")
SUITABLE = ("sd1", "sd2", "sdxl", "stable-diffusion", *JOINT_FAMILIES)


@dataclass(frozen=True)
class SavedLora:
    """A saved LoRA file.

    Attributes:
        captured: the share of the squared change of all weights that it contains, 0..1, without
            the layers that are left out; 1 for a LoRA run.
    """

    path: Path
    rank: int
    captured: float


def save_lora(
    unlearned: UnlearnedModel,
    destination: str | Path,
    *,
    rank: int = 32,
    overwrite: bool = False,
    report: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> SavedLora:
    """Write the change as a LoRA: the LoRA of a LoRA run itself, otherwise an approximation of
    rank ``rank``.

    Args:
        report: of its evaluation, from ``report_json``.
        progress: ticks once for each tensor to approximate, then in bytes.

    Raises:
        ValueError: not a Stable Diffusion model, no change that a LoRA contains, a change that is
            not finite, or a rank below 1.
        FileExistsError: ``destination`` exists and ``overwrite`` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination, info = Path(destination), unlearned.base.info
    progress = progress or Progress()
    if info.family not in SUITABLE:
        raise ValueError(
            f"save_as: {info.name!r} is {info.family}, and no program loads LoRA files for it; "
            "save the complete model"
        )
    if rank < 1:
        raise ValueError(f"lora_rank must be 1 or more, got {rank}")
    refuse_existing(destination, info.source, overwrite=overwrite)
    layers = unlearned.model.lora_layers()
    if layers:
        tensors, captured = _factors(layers), 1.0
        rank, alpha = unlearned.settings.lora_rank, unlearned.settings.lora_alpha
    else:
        tensors, captured = _approximation(unlearned, rank, progress)
        alpha = float(rank)
    if not tensors:
        raise ValueError(
            "unlearned: no weights have changed that a LoRA can contain; save the complete model"
        )
    if info.family in JOINT_FAMILIES:
        dtype, renamed = None, _diffusers_names(tensors)
    else:
        dtype, names = _layout(unlearned)
        renamed = {_key(name, names): value for name, value in tensors.items()}
    header = lora_metadata(unlearned, report, destination.stem, rank, alpha, metadata or {})
    with appearing(destination) as part:
        write_converted(part, renamed, dtype, header, progress)
    return SavedLora(destination, rank, captured)


def _factors(layers: Mapping[str, LoraLayer]) -> dict[str, Tensor]:
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_down.weight"] = layer.down
        tensors[f"{name}.lora_up.weight"] = layer.up
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    return tensors


def _approximation(
    unlearned: UnlearnedModel, rank: int, progress: Progress
) -> tuple[dict[str, Tensor], float]:
    """The change of each matrix and convolution in its best approximation of that rank, and the
    captured share of the squared change."""
    base = dict(unlearned.base.named_parameters())
    changed = unlearned.model.changed_tensors()
    is_joint = unlearned.base.info.family in JOINT_FAMILIES
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    total = lost = 0.0
    with progress.phase(EXTRACTING, len(changed)):
        for name, value in progress.ticking(changed.items()):
            delta = value.detach().float() - base[name].detach().float()
            rest = delta
            if delta.ndim > 1 and (is_joint or UNET_BLOCKS.fullmatch(name)):
                module = name.removesuffix(".weight")
                down, up = factors[module] = low_rank(delta, rank)
                rest = delta.flatten(1) - up.flatten(1) @ down.flatten(1)
            lost += rest.square().sum().item()
            total += delta.square().sum().item()
    # diffusers ignores the alpha of some layers, so all have the same rank and no other scale.
    most = max((len(down) for down, _ in factors.values()), default=0)
    tensors = {}
    for module, (down, up) in factors.items():
        missing = most - len(down)
        tensors[f"{module}.lora_down.weight"] = torch.cat(
            [down, down.new_zeros(missing, *down.shape[1:])]
        )
        tensors[f"{module}.lora_up.weight"] = torch.cat(
            [up, up.new_zeros(len(up), missing, *up.shape[2:])], 1
        )
        tensors[f"{module}.alpha"] = torch.tensor(float(most))
    return tensors, 1 - lost / total if total else 1.0


def low_rank(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``(down, up)`` with ``up @ down`` close to ``delta``, which is [out, in] or
    [out, in, kh, kw]; of lower rank than ``rank`` if the matrix is smaller.

    Raises:
        ValueError: the change is not finite.
    """
    if kind := kind_of(delta):
        raise ValueError(
            f"unlearned: the change holds {kind}, so there is no LoRA to save; go back "
            "to an earlier step, or lower learning_rate"
        )
    u, s, v = truncated_svd(delta.flatten(1), rank)
    root = s.sqrt()
    up, down = u * root, (v * root).T
    if delta.ndim == 4:
        return down.reshape(len(down), *delta.shape[1:]), up[:, :, None, None]
    return down.contiguous(), up.contiguous()


def _diffusers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of diffusers' transformers. They have no alpha, so it becomes part of ``up``."""
    renamed = {}
    for name, value in tensors.items():
        module, _, kind = name.partition(".lora_")
        if kind == "down.weight":
            renamed[f"transformer.{module}.lora_A.weight"] = value
            scale = tensors[f"{module}.alpha"].item() / len(value)
            renamed[f"transformer.{module}.lora_B.weight"] = (
                tensors[f"{module}.lora_up.weight"] * scale
            )
    return renamed


def _layout(unlearned: UnlearnedModel) -> tuple[torch.dtype, Mapping[str, str]]:
    """The dtype of the model's file, and for SDXL the names of the U-Net's weights in the file:
    kohya's trainer uses these as layer names for SDXL, and diffusers' names for other families."""
    source = unlearned.base.info.source
    if source is None or not source.is_file():
        return torch.float32, {}
    header, family = read_checkpoint(source)
    names = ldm_names(header, unet_config(header, family))
    dtype = DTYPES[header.tensors[next(iter(names.values()))].dtype]
    return dtype, names if family.name == "sdxl" else {}


def _key(name: str, ldm: Mapping[str, str]) -> str:
    """``down_blocks.0.attn.to_q.lora_up.weight`` -> ``lora_unet_down_blocks_0_attn_to_q.lora…``."""
    for ending in (".lora_down.weight", ".lora_up.weight", ".alpha"):
        if name.endswith(ending):
            module = name.removesuffix(ending)
            weight = ldm.get(f"{module}.weight")
            if weight is not None:
                module = weight.removeprefix(UNET).removesuffix(".weight")
            return PREFIX + module.replace(".", "_") + ending
    raise AssertionError(name)
