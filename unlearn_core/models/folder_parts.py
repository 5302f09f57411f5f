"""Read the components of a model in diffusers' layout, each from its own folder."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import torch

from ..foundation.finite import non_finite
from ..foundation.plurals import count_of
from ..foundation.safetensors_file import DTYPES, read_header
from .errors import ModelError
from .file_kinds import check_dtypes
from .folder_check import check_size
from .noise_settings import check_class, read_settings
from .text import Clip
from .versions import dtype_argument
from .weights import vectors_to_fp32

SHIFT, STATISTICS = ("shift_factor",), ("latents_mean", "latents_std")
"""Settings of the scale of an autoencoder's latents, besides ``scaling_factor``."""
# Names of diffusers and transformers; a variant stands before or after the number of a shard.
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<variant>[^.-]+))?(-\d+-of-\d+)?(\.(?P<last>[^.]+))?"
    r"\.safetensors"
)


def read_component(loader: Any, folder: Path, name: str, **options: Any) -> Any:
    """Read one component of a pipeline; the library's errors are converted to ``ModelError``."""
    variant = _variant(folder / name)
    if variant:
        options["variant"] = variant
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


def _variant(component: Path) -> str:
    """The variant of a component's weights to load: none if there are weights without one,
    otherwise fp16, otherwise the first."""
    names = map(_variant_of, component.glob("*.safetensors"))
    variants = {name for name in names if name is not None}
    return min(variants, key=lambda name: (name != "", name != "fp16", name), default="")


def _variant_of(file: Path) -> str | None:
    """The variant in the name of a weight file, possibly one of several shards; empty for none.
    None if it is no weight file of a component."""
    match = WEIGHTS.fullmatch(file.name)
    return None if match is None else match["variant"] or match["last"] or ""


def read_weights(loader: Any, folder: Path, name: str, device: torch.device, **options: Any) -> Any:
    """Read a frozen module of a pipeline and check that the file contains all of its tensors: the
    libraries initialize missing ones randomly and only warn. NaN and infinity are refused."""
    with _reported(folder, name):
        check_size(loader, folder, name)
    module, info = read_component(loader, folder, name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model: {folder.name}/{name} lacks {count_of(len(missing), 'tensor')}, "
            f"{missing[0]!r} is the first ({_weight_files(folder / name)}); copy or download it "
            "again"
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


def read_denoiser(
    loader: Any, folder: Path, name: str, device: torch.device, *, mixed: bool = False
) -> Any:
    """Read the denoiser, with ``mixed`` in a dtype that holds all weights of its file exactly,
    otherwise in fp32.

    Raises:
        ModelError: the weights are missing, damaged, not finite or in 8 bits.
    """
    files = weight_files_of(folder / name)
    entries = [entry for file in files for entry in read_header(file).tensors.values()]
    check_dtypes(entries, f"{folder.name}/{name}")
    dtypes = {DTYPES[entry.dtype] for entry in entries} if mixed else set()
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float32
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    return read_weights(loader, folder, name, device, **options)


def weight_files_of(component: Path) -> list[Path]:
    """The safetensors files of a component that are loaded, sorted by name."""
    variant = _variant(component)
    files = sorted(component.glob("*.safetensors"))
    return [file for file in files if _variant_of(file) == variant]


def read_text_encoder(
    loader: Any, folder: Path, suffix: str, device: torch.device, *, mixed: bool
) -> Any:
    """Read the text encoder of this suffix, with ``mixed`` in the dtype of its file, otherwise in
    fp32."""
    dtype = {dtype_argument(): "auto" if mixed else torch.float32}
    return read_weights(loader, folder, f"text_encoder{suffix}", device, **dtype)


def read_clip(loader: Any, folder: Path, suffix: str, device: torch.device, *, mixed: bool) -> Clip:
    """Read one of CLIP's text encoders and its tokenizer.

    Raises:
        ModelError: a part is missing or damaged. Without its vocabulary, transformers 5 creates a
            tokenizer to which all prompts are alike.
    """
    from transformers import CLIPTokenizer

    encoder = read_text_encoder(loader, folder, suffix, device, mixed=mixed)
    tokenizer = read_component(CLIPTokenizer, folder, f"tokenizer{suffix}")
    words, known = len(tokenizer), encoder.config.vocab_size
    if words < known // 2:
        raise ModelError(
            f"model: {folder.name}/tokenizer{suffix} has a vocabulary of {words}, its text encoder "
            f"of {known}; download tokenizer.json, or vocab.json and merges.txt, again"
        )
    # Without this setting in its file, a tokenizer has no limit.
    most = encoder.config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, most)
    return Clip(encoder, tokenizer)


def read_vae(
    folder: Path,
    index: dict[str, Any],
    channels: int,
    device: torch.device,
    unused: Sequence[str],
) -> Any:
    """Read the autoencoder, always in fp32: SDXL's overflows in fp16.

    Args:
        channels: of the latents that the denoiser works on.
        unused: the settings of the latents' scale that the family's pipeline does not read.
    """
    from diffusers import AutoencoderKL

    check_class(folder, index, "vae", read_settings(folder, "vae/config.json"), ("AutoencoderKL",))
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    vae = read_weights(AutoencoderKL, folder, "vae", device, **options)
    _check_latents(folder, vae.config, channels)
    for setting in unused:
        if vae.config.get(setting):
            raise ModelError(
                f"model: {folder.name}/vae/config.json: {setting} must be null for this kind of "
                f"model, got {vae.config[setting]!r}: diffusers does not use it there; set it to "
                "null, or choose another model"
            )
    return vae


def _check_latents(folder: Path, config: Mapping[str, Any], channels: int) -> None:
    """Require that the settings of an autoencoder describe the scale of its latents.

    Raises:
        ModelError: another number of channels, or a value that is not valid.
    """
    name, latents = f"model: {folder.name}/vae/config.json", config["latent_channels"]
    if latents != channels:
        raise ModelError(
            f"{name}: latent_channels must be {channels}, as in the denoiser, got {latents!r}"
        )
    factor, shift = config["scaling_factor"], config.get("shift_factor") or 0.0
    if not _is_finite(factor) or factor <= 0:
        raise ModelError(f"{name}: scaling_factor must be a positive number, got {factor!r}")
    if not _is_finite(shift):
        raise ModelError(f"{name}: shift_factor must be a number or null, got {shift!r}")
    mean, spread = config.get("latents_mean"), config.get("latents_std")
    if mean is None and spread is None:
        return
    if not _are_numbers(mean, channels):
        raise ModelError(f"{name}: latents_mean must be {channels} numbers, got {mean!r}")
    if not _are_numbers(spread, channels) or min(spread) <= 0:
        raise ModelError(f"{name}: latents_std must be {channels} positive numbers, got {spread!r}")


def _are_numbers(values: object, count: int) -> TypeGuard[Sequence[float]]:
    return (
        isinstance(values, (list, tuple)) and len(values) == count and all(map(_is_finite, values))
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
