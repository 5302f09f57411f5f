"""Read the components of a model in diffusers' layout, each from its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..foundation.finite import non_finite
from ..foundation.safetensors_file import DTYPES, read_header
from .denoiser import NoiseSchedule
from .errors import ModelError
from .folder_check import check_size
from .text import Clip
from .versions import dtype_argument
from .weights import vectors_to_fp32


def read_component(loader: Any, folder: Path, name: str, **options: Any) -> Any:
    """Read one component of a pipeline; the library's errors are converted to ``ModelError``."""
    files = [file.name for file in (folder / name).glob("*.safetensors*")]
    if files and all(".fp16." in file for file in files):
        options["variant"] = "fp16"
    with _reported(folder, name):
        return loader.from_pretrained(
            folder / name, local_files_only=True, use_safetensors=True, **options
        )


@contextmanager
def _reported(folder: Path, name: str) -> Iterator[None]:
    """Convert the libraries' errors to ``ModelError``."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # tokenizers has no class of its own for errors
        raise ModelError(f"model: {folder.name}/{name} cannot be loaded: {error}") from error


def read_weights(loader: Any, folder: Path, name: str, device: torch.device, **options: Any) -> Any:
    """Read a frozen module of a pipeline and check that the file contains all of its tensors: the
    libraries initialize missing ones randomly and only warn. NaN and infinity are refused."""
    with _reported(folder, name):
        check_size(loader, folder, name)
    module, info = read_component(loader, folder, name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model: {folder.name}/{name} lacks {len(missing)} tensors, {missing[0]!r} is the "
            f"first ({_weight_files(folder / name)}); copy or download it again"
        )
    if fault := non_finite(module.state_dict().items()):
        raise ModelError(
            f"model: {folder.name}/{name} holds {fault}; download it again, or choose another model"
        )
    vectors_to_fp32(module)
    return module.to(device).eval().requires_grad_(False)


def _weight_files(component: Path) -> str:
    names = sorted(file.name for file in component.glob("*.safetensors"))
    return f"in {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def read_scheduler(folder: Path) -> tuple[NoiseSchedule, dict[str, object]]:
    """Read the noise schedule and the sampler's settings."""
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
    """Read the denoiser, with ``mixed`` in the dtype of its file, otherwise in fp32."""
    dtype = _stored_dtype(folder / name) if mixed else torch.float32
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    return read_weights(loader, folder, name, device, **options)


def _stored_dtype(component: Path) -> torch.dtype:
    """The dtype of a component's weights on disk, which diffusers does not detect."""
    for file in sorted(component.glob("*.safetensors")):
        for entry in read_header(file).tensors.values():
            if entry.dtype in DTYPES:
                return DTYPES[entry.dtype]
    return torch.float32


def read_text_encoder(
    loader: Any, folder: Path, suffix: str, device: torch.device, *, mixed: bool
) -> Any:
    """Read the text encoder of this suffix, with ``mixed`` in the dtype of its file, otherwise in
    fp32."""
    dtype = {dtype_argument(): "auto" if mixed else torch.float32}
    return read_weights(loader, folder, f"text_encoder{suffix}", device, **dtype)


def read_clip(loader: Any, folder: Path, suffix: str, device: torch.device, *, mixed: bool) -> Clip:
    """Read one of CLIP's text encoders and its tokenizer."""
    from transformers import CLIPTokenizer

    encoder = read_text_encoder(loader, folder, suffix, device, mixed=mixed)
    return Clip(encoder, read_component(CLIPTokenizer, folder, f"tokenizer{suffix}"))


def read_vae(folder: Path, device: torch.device) -> Any:
    """Read the autoencoder, always in fp32: SDXL's overflows in fp16."""
    from diffusers import AutoencoderKL

    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    return read_weights(AutoencoderKL, folder, "vae", device, **options)
