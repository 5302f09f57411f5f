"""The parts of a model in diffusers' layout, each read from a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..foundation.safetensors_file import DTYPES, read_header
from .denoiser import NoiseSchedule
from .errors import ModelError
from .weights import keep_vectors_exact


def read_component(loader: Any, folder: Path, name: str, **options: Any) -> Any:
    """One part of a pipeline; whatever the library says of a bad one becomes a ``ModelError``."""
    files = [file.name for file in (folder / name).glob("*.safetensors*")]
    if files and all(".fp16." in file for file in files):
        options["variant"] = "fp16"
    try:
        return loader.from_pretrained(
            folder / name, local_files_only=True, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"model: {folder.name}/{name} cannot be loaded: {error}") from error


def read_weights(loader: Any, folder: Path, name: str, device: torch.device, **options: Any) -> Any:
    """A frozen module of a pipeline, with every one of its tensors read from the file: the
    libraries fill what is missing with random numbers and only warn."""
    module, info = read_component(loader, folder, name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model: {folder.name}/{name} lacks {len(missing)} tensors, {missing[0]!r} the first; "
            "copy or download it again"
        )
    keep_vectors_exact(module)
    return module.to(device).eval().requires_grad_(False)


def read_scheduler(folder: Path) -> tuple[NoiseSchedule, dict[str, object]]:
    """The noise schedule, and the settings that a sampler needs."""
    from diffusers import DDPMScheduler

    try:
        scheduler: Any = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        config = dict(scheduler.config)
        schedule = NoiseSchedule(scheduler.alphas_cumprod, str(config["prediction_type"]))
    except (OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"model: {folder.name}/scheduler cannot be loaded: {error}") from error
    return schedule, config


def read_denoiser(
    loader: Any, folder: Path, name: str, device: torch.device, *, mixed: bool = False
) -> Any:
    """In the dtype that it is stored in where ``mixed``, else in fp32."""
    dtype = _stored_dtype(folder / name) if mixed else torch.float32
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    return read_weights(loader, folder, name, device, **options)


def _stored_dtype(component: Path) -> torch.dtype:
    """The dtype of a component's weights on disk, which diffusers does not look at by itself."""
    for file in sorted(component.glob("*.safetensors")):
        for entry in read_header(file).tensors.values():
            if entry.dtype in DTYPES:
                return DTYPES[entry.dtype]
    return torch.float32


def read_vae(folder: Path, device: torch.device) -> Any:
    """In fp32 always: SDXL's overflows in fp16."""
    from diffusers import AutoencoderKL

    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    return read_weights(AutoencoderKL, folder, "vae", device, **options)
