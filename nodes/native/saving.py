"""Save the result of a MODEL of ComfyUI: a LoRA, or a checkpoint that ComfyUI itself writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.sd
import torch
from comfy.model_base import ModelType

from ...unlearn_core.foundation.atomic import appearing, refuse_existing
from ...unlearn_core.foundation.progress import EXTRACTING, SAVING, Progress
from ...unlearn_core.foundation.safetensors_file import (
    blocks,
    non_finite_in,
    read_header,
    write_converted,
)
from ...unlearn_core.models.errors import UnsupportedError
from ...unlearn_core.saving.lora import low_rank
from ...unlearn_core.saving.metadata import checkpoint_metadata, lora_metadata
from ...unlearn_core.unlearning.results import UnlearnedModel
from ..host.folders import CHECKPOINT, FOLDER, LORA
from .adapters import Adapters, Layer, LowRank
from .handle import NativeHandle
from .lora_file import COMFYUI, DIFFUSERS, KOHYA, has_names, lora_state_dict
from .network import Network
from .patching import patched_model

LORA_NAMES = {"ComfyUI": COMFYUI, "kohya": KOHYA, "diffusers": DIFFUSERS}
"""The options of the input ``lora_names``, the default first, and their names in ``lora_file``."""
NO_HASH = hashlib.sha256(b"the hash of the file's tensors").hexdigest()
"""Takes the place of the hash until the tensors are written."""


@dataclass(frozen=True)
class Saving:
    """How to save.

    Attributes:
        lora_names: one of ``LORA_NAMES``.
        lora_rank: the rank of the LoRA of a closed-form edit; trained LoRAs keep their own.
        report: of the evaluation, from ``report_json``.
        metadata: additional entries, such as ComfyUI's workflow.
        progress: ticks once for each tensor to approximate, then in bytes.
    """

    lora_names: str
    lora_rank: int
    overwrite: bool
    report: Mapping[str, Any]
    metadata: Mapping[str, str]
    progress: Progress


def save_native(
    unlearned: UnlearnedModel, handle: NativeHandle, kind: str, destination: Path, saving: Saving
) -> str:
    """Save in one of the formats of ``host.folders``, and return a note for the person.

    Args:
        handle: ``unlearned.model``.

    Raises:
        UnsupportedError: the model has no such format, or its architecture no such names.
        FileExistsError: ``destination`` exists and ``overwrite`` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    if kind == FOLDER:
        raise UnsupportedError(
            f"save_as must be {LORA!r} or {CHECKPOINT!r} for {handle.info.name!r}, a MODEL of "
            f"ComfyUI, got {FOLDER!r}; choose {LORA!r}, or open the model with Load Model"
        )
    refuse_existing(destination, None, overwrite=saving.overwrite)
    if kind == LORA:
        return _save_lora(unlearned, handle, destination, saving)
    return _save_checkpoint(unlearned, handle, destination, saving)


def check_lora_names(lora_names: str) -> None:
    """Raises:
    ValueError: not one of ``LORA_NAMES``.
    """
    if not isinstance(lora_names, str) or lora_names not in LORA_NAMES:
        raise ValueError(
            f"lora_names must be one of {', '.join(LORA_NAMES)}, got {lora_names!r}; choose one "
            "from the list"
        )


def _save_lora(
    unlearned: UnlearnedModel, handle: NativeHandle, destination: Path, saving: Saving
) -> str:
    """The factors are stored in fp32 if the MODEL's weights are, otherwise in fp16: kohya's trainer
    writes it by default, all programs read it, and it is more precise than bf16."""
    check_lora_names(saving.lora_names)
    names = LORA_NAMES[saving.lora_names]
    settings = unlearned.settings
    rank, alpha, note = settings.lora_rank, settings.lora_alpha, ""
    if handle.adapters.whole:
        rank, alpha = saving.lora_rank, float(saving.lora_rank)
        handle, captured = _approximation(handle, rank, saving.progress)
        note = f"\nrank {rank}, captures {100 * captured:.1f} % of the change"
    if not has_names(handle, names):
        others = " or ".join(repr(name) for name in LORA_NAMES if name != saving.lora_names)
        raise UnsupportedError(
            f"lora_names must be {others} for {handle.network.family.label}, got "
            f"{saving.lora_names!r}: diffusers has no such layers; choose 'kohya', which most "
            "programs read"
        )
    tensors = lora_state_dict(handle, names)
    dtype = handle.network.model.get_dtype()
    header = lora_metadata(unlearned, saving.report, destination.stem, rank, alpha, saving.metadata)
    with appearing(destination) as part:
        write_converted(
            part,
            tensors,
            torch.float32 if dtype == torch.float32 else torch.float16,
            header,
            saving.progress,
        )
    return note


@torch.no_grad()
def _approximation(
    handle: NativeHandle, rank: int, progress: Progress
) -> tuple[NativeHandle, float]:
    """The handle with each replaced weight as the best low-rank change of that rank, and the
    captured share of the squared change, 0..1."""
    layers: dict[str, Layer] = dict(handle.adapters.layers)
    whole = handle.adapters.whole
    total = lost = 0.0
    with progress.phase(EXTRACTING, len(whole)):
        for name in progress.ticking(whole):
            change = handle.change(name)
            down, up = low_rank(change, rank)
            layer = LowRank(down, len(up), float(len(down)))
            layer.up.copy_(up)
            layers[name] = layer
            total += change.square().sum().item()
            lost += (change - layer.delta(change).to(change.device)).square().sum().item()
    if total == 0:
        raise ValueError("unlearned: no weights have changed, so there is no LoRA to save")
    return replace(handle, adapters=Adapters(layers)), 1 - lost / total


def _save_checkpoint(
    unlearned: UnlearnedModel, handle: NativeHandle, destination: Path, saving: Saving
) -> str:
    if handle.vae is None:
        raise UnsupportedError(
            f"vae must be linked to From ComfyUI to save a {CHECKPOINT}, which contains it; link "
            f"the loader's VAE, or set save_as to {LORA!r}"
        )
    if not _loads_again(handle.network):
        raise UnsupportedError(
            f"save_as must be {LORA!r} for {handle.info.name!r}, got {CHECKPOINT!r}, which "
            f"ComfyUI's Load Checkpoint would not recognise; choose {LORA!r}"
        )
    model = patched_model(handle.network.given, handle, 1.0)
    metadata = checkpoint_metadata(unlearned, saving.report, destination.stem, {}, saving.metadata)
    with appearing(destination) as part:
        comfy.sd.save_checkpoint(
            str(part),
            model,
            handle.clip,
            handle.vae,
            metadata=dict(metadata(NO_HASH)),
            extra_keys=_schedule_keys(handle.network),
        )
        if fault := non_finite_in(part):
            raise ValueError(
                f"the checkpoint would hold {fault}, so it is not saved; save a {LORA}, go back to "
                "an earlier step, or lower learning_rate"
            )
        _insert_hash(part, saving.progress)
    return ""


def _loads_again(network: Network) -> bool:
    """Whether ComfyUI would recognise the model in its own checkpoint. It does so by shapes, and
    small models have others."""
    config = network.model.model_config
    if network.model.model_type == ModelType.EDM:
        return False  # Playground 2.5: ComfyUI does not write the mark of this schedule
    if vars(config).get("layer_quant_config"):
        return (
            False  # 0.3.75 cannot write these weights; newer versions can, and lack the attribute
        )
    weights = config.process_unet_state_dict_for_saving(dict(network.module.state_dict()))
    prefix = comfy.model_detection.unet_prefix_from_state_dict(weights)
    recognised: Any = comfy.model_detection.model_config_from_unet(weights, prefix)
    if type(recognised) is not type(config):
        return False
    actual = config.unet_config
    return all(actual.get(key, value) == value for key, value in recognised.unet_config.items())


def _schedule_keys(network: Network) -> dict[str, torch.Tensor]:
    """Entries by which ComfyUI recognises a noise schedule; it writes only "v_pred" by itself."""
    sampling: Any = network.schedule.sampling
    keys: dict[str, torch.Tensor] = {}
    if network.model.model_type == ModelType.V_PREDICTION and getattr(sampling, "zsnr", False):
        keys["ztsnr"] = torch.tensor([])
    if network.model.model_type == ModelType.V_PREDICTION_EDM:
        keys["edm_vpred.sigma_max"] = torch.tensor(float(sampling.sigma_max))
        keys["edm_vpred.sigma_min"] = torch.tensor(float(sampling.sigma_min))
    return keys


def _insert_hash(file: Path, progress: Progress) -> None:
    """Replace ``NO_HASH`` in the header by the SHA-256 of the tensors' bytes."""
    start = read_header(file).data_start
    digest = hashlib.sha256()
    with progress.phase(SAVING, file.stat().st_size):
        skip = start
        for block in blocks(file):
            digest.update(block[skip:])
            skip = max(0, skip - len(block))
            progress.tick(len(block))
    with file.open("r+b") as stream:
        header = stream.read(start)
        stream.seek(0)
        stream.write(header.replace(NO_HASH.encode(), digest.hexdigest().encode()))
