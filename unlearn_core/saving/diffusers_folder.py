"""Save an unlearned model as a diffusers folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.atomic import MODEL_INDEX, appearing, refuse_existing
from ..foundation.progress import Progress
from ..foundation.safetensors_file import (
    DTYPES,
    copy_replacing,
    read_header,
    write_converted,
)
from ..judging.evaluators import EVALUATION
from ..models.errors import PICKLES
from ..models.folder import component_names, read_index
from ..models.rounding import rounded, stored_dtypes
from ..models.stable_diffusion import StableDiffusionHandle
from ..models.text import save_clip
from ..reporting.report import report_json
from ..unlearning.results import UnlearnedModel
from .source import require_source

# Of files beside the components: model cards and licences. A licence must stay with the weights.
COMPANIONS = (MODEL_INDEX, "README*", "LICENSE*", "LICENCE*")
CODE = (".py", ".pyc", ".so", ".dll", ".pyd", ".sh", ".bat", ".exe")
OTHER_WEIGHTS = (*PICKLES, ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb")
REPORT_FILE = "unlearn_report.json"
SAFETENSORS = ".safetensors"
WEIGHTS = f"diffusion_pytorch_model{SAFETENSORS}"
# What libraries load if nobody asks for a variant.
PLAIN_WEIGHTS = tuple(
    f"{name}{SAFETENSORS}{index}"
    for name in ("diffusion_pytorch_model", "model")
    for index in ("", ".index.json")
)


def save_diffusers_folder(
    unlearned: UnlearnedModel,
    destination: str | Path,
    *,
    overwrite: bool = False,
    report: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the model to ``destination``; the complete folder appears there, or nothing.

    A model from a folder is copied with the changed tensors replaced: the components that its
    ``model_index.json`` names, model card, licence, and its own evaluators. Everything else,
    including dtype and metadata, stays the same. A model from a single file is split into its
    components. Changed weights are rounded as in ``models/rounding.py``.

    Args:
        report: of its evaluation, from ``report_json``.
        progress: ticks in bytes of the denoiser, the largest part.

    Raises:
        FileExistsError: ``destination`` exists and ``overwrite`` is false, or is not a model.
        FileNotFoundError: the model that was loaded is no longer there.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination, source = Path(destination), unlearned.base.info.source
    if source is None:
        raise ValueError(
            f"save_as: {unlearned.base.info.name!r} was loaded by another program, so it cannot be "
            "saved as a folder; save a LoRA"
        )
    require_source(source)
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
    denoiser, changed = unlearned.base.info.denoiser_folder, unlearned.model.changed_tensors()
    for file in _files(source, denoiser):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.parent == source / denoiser and file.suffix == SAFETENSORS:
            header = read_header(file)
            copy_replacing(
                file,
                copy,
                lambda name, header=header: _rounded(
                    changed, name, DTYPES.get(header.tensors[name].dtype)
                ),
                lambda _, same=header.metadata: same,
                progress,
            )
        else:
            shutil.copyfile(file, copy)


def _rounded(changed: Mapping[str, Tensor], name: str, dtype: torch.dtype | None) -> Tensor | None:
    """The new value of a weight in the dtype of its file; None if it stays the same."""
    return rounded(name, changed[name], dtype) if name in changed and dtype is not None else None


def _files(source: Path, denoiser: str) -> list[Path]:
    """The files of a model in a folder. Never code, and never the denoiser's weights in another
    format, which would bring back the concept. Pickles are copied unread, and only for components
    that cannot be loaded without them."""
    files = [file for pattern in COMPANIONS for file in source.glob(pattern)]
    for name in (*component_names(read_index(source)), EVALUATION):
        inside = [file for file in (source / name).rglob("*") if not _is_hidden(file, source)]
        loads = name == denoiser or any(f.name in PLAIN_WEIGHTS for f in inside)
        unused = CODE + OTHER_WEIGHTS if loads else CODE
        files += [file for file in inside if file.suffix.lower() not in unused]
    return sorted(file for file in files if file.is_file())


def _is_hidden(file: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(source).parts)


def _split(
    unlearned: UnlearnedModel, source: Path, folder: Path, progress: Progress | None
) -> None:
    """Write the components of a single file in diffusers' layout. Memory beyond the model: one
    tensor.

    Each weight of the U-Net keeps its dtype in the file. The other components are converted to the
    first of these dtypes if it holds their weights exactly, otherwise to fp32."""
    from diffusers import DDIMScheduler

    model = unlearned.base
    assert isinstance(model, StableDiffusionHandle)  # the only family of single files
    dtypes = stored_dtypes(model.info)
    usual = next(iter(dtypes.values()))

    changed = unlearned.model.changed_tensors()
    _write_diffusers(
        model.base,
        folder / "unet",
        dtypes,
        lambda name: _rounded(changed, name, dtypes[name]),
        progress,
    )
    _write_diffusers(model.vae, folder / "vae", _lossless(model.vae, usual))
    # With zero terminal SNR, pipelines must start at the last timestep (Lin et al. 2024).
    spacing = "trailing" if model.scheduler_config["rescale_betas_zero_snr"] else "leading"
    scheduler: Any = DDIMScheduler.from_config(model.scheduler_config, timestep_spacing=spacing)
    scheduler.save_pretrained(folder / "scheduler")
    clips = model.text.clips
    for suffix, clip in zip(("", "_2"), clips, strict=False):
        dtype = _lossless(clip.encoder, usual)
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


def _lossless(module: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """``dtype`` if it holds all weights exactly, otherwise fp32."""
    parameters = module.parameters()
    is_exact = all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in parameters)
    return dtype if is_exact else torch.float32


def _write_diffusers(
    module: Any,
    folder: Path,
    dtype: torch.dtype | Mapping[str, torch.dtype],
    replacement: Callable[[str], Tensor | None] = lambda _: None,
    progress: Progress | None = None,
) -> None:
    module.save_config(folder)
    metadata = {"format": "pt"}
    write_converted(
        folder / WEIGHTS, module.state_dict(), dtype, lambda _: metadata, progress, replacement
    )
