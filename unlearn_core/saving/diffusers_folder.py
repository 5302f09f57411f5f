"""Save an unlearned model as a diffusers folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..foundation.atomic import MODEL_INDEX, appearing, refuse_existing
from ..foundation.progress import Progress
from ..foundation.safetensors_file import (
    DTYPES,
    copy_replacing,
    read_header,
    write_converted,
)
from ..models.single_file import ldm_names, read_checkpoint, unet_config
from ..models.stable_diffusion import StableDiffusionHandle
from ..models.text import save_clip
from ..reporting.report import report_json
from ..unlearning.results import UnlearnedModel

COPIED_SUFFIXES = (".json", ".txt", ".safetensors", ".md", ".model")  # no pickles, no code
REPORT_FILE = "unlearn_report.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_diffusers_folder(
    unlearned: UnlearnedModel,
    destination: str | Path,
    *,
    overwrite: bool = False,
    report: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the model to ``destination``; the complete folder appears there, or nothing.

    A model from a folder is copied with the changed tensors replaced; everything else, including
    dtype and metadata, stays the same. A model from a single file is split into its components.

    Args:
        report: of its evaluation, from ``report_json``.
        progress: ticks in bytes of the denoiser, the largest part.

    Raises:
        FileExistsError: ``destination`` exists and ``overwrite`` is false, or is not a model.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination, source = Path(destination), unlearned.base.info.source
    if source is None:
        raise ValueError(
            f"save_as: {unlearned.base.info.name!r} was loaded by another program, so it cannot be "
            "saved as a folder; save a LoRA"
        )
    refuse_existing(destination, source, overwrite=overwrite)
    with appearing(destination) as part:
        part.mkdir()
        if source.is_dir():
            _copy(unlearned, source, part, progress)
        else:
            _split(unlearned, source, part, progress)
        content = report or report_json(unlearned, None)
        (part / REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return destination


def _copy(unlearned: UnlearnedModel, source: Path, folder: Path, progress: Progress | None) -> None:
    info, changed = unlearned.base.info, unlearned.model.changed_tensors()
    for file in sorted(source.rglob("*")):
        relative = file.relative_to(source)
        single_file = len(relative.parts) == 1 and file.suffix == ".safetensors"
        if not file.is_file() or file.suffix not in COPIED_SUFFIXES or relative.name == REPORT_FILE:
            continue
        if single_file:  # a download may also contain the whole original model as one file
            continue
        copy = folder / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        is_denoiser = relative.parent == Path(info.denoiser_folder)
        if is_denoiser and file.suffix == ".safetensors":
            metadata = read_header(file).metadata
            copy_replacing(file, copy, changed.get, lambda _, same=metadata: same, progress)
        else:
            shutil.copyfile(file, copy)


def _split(
    unlearned: UnlearnedModel, source: Path, folder: Path, progress: Progress | None
) -> None:
    """Write the components of a single file in diffusers' layout, in the file's dtype. Memory
    beyond the model: one tensor."""
    from diffusers import DDIMScheduler

    model = unlearned.base
    assert isinstance(model, StableDiffusionHandle)  # the only family of single files
    header, family = read_checkpoint(source)
    key = next(iter(ldm_names(header, unet_config(header, family)).values()))
    dtype = DTYPES[header.tensors[key].dtype]

    changed = unlearned.model.changed_tensors()
    _write_diffusers(model.base, folder / "unet", dtype, changed.get, progress)
    _write_diffusers(model.vae, folder / "vae", dtype)
    scheduler: Any = DDIMScheduler.from_config(model.scheduler_config)
    scheduler.save_pretrained(folder / "scheduler")
    clips = model.text.clips
    for suffix, clip in zip(("", "_2"), clips, strict=False):
        save_clip(clip, folder / f"text_encoder{suffix}", folder / f"tokenizer{suffix}", dtype)
    index = json.dumps(_index(len(clips) == 2), indent=2) + "\n"
    (folder / MODEL_INDEX).write_text(index, encoding="utf-8")


def _index(pair: bool) -> dict[str, Any]:
    import diffusers

    parts: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if pair else "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    if pair:
        parts["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        parts["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        parts["force_zeros_for_empty_prompt"] = False
    else:
        parts.update(safety_checker=[None, None], feature_extractor=[None, None])
        parts["requires_safety_checker"] = False
    return parts


def _write_diffusers(
    module: Any,
    folder: Path,
    dtype: torch.dtype,
    replacement: Callable[[str], Tensor | None] = lambda _: None,
    progress: Progress | None = None,
) -> None:
    module.save_config(folder)
    metadata = {"format": "pt"}
    write_converted(
        folder / WEIGHTS, module.state_dict(), dtype, lambda _: metadata, progress, replacement
    )
