"""Opens a diffusers folder, recognises its family, and refuses what is not a diffusion model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .denoiser import NoiseSchedule
from .protocol import ModelHandle, ModelInfo

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
FAMILIES = "a diffusers folder of Stable Diffusion, or of a UNet2DModel with class labels"


class ModelError(ValueError):
    """A model that cannot be opened; the message says what it is and what would do."""


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> ModelHandle:
    """Open a diffusers folder in fp32, ready for unlearning.

    Raises:
        ModelError: a missing or truncated file, a pickle, something that is no diffusion model.
    """
    folder = Path(folder)
    index = read_index(folder)
    fingerprint = weights_fingerprint(folder)
    if "text_encoder_2" in index:
        raise ModelError(f"model: {folder.name!r} is {index.get('_class_name')}; wanted {FAMILIES}")
    if {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= set(index):
        return _stable_diffusion(folder, fingerprint, torch.device(device))
    if "unet" in index and "id2label" in index:
        return _class_conditional(folder, index, fingerprint, torch.device(device))
    raise ModelError(f"model: {folder.name!r} is {index.get('_class_name')}; wanted {FAMILIES}")


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a diffusers folder, after looking at what was given instead."""
    if not folder.exists():
        raise ModelError(f"model: {str(folder)!r} does not exist, choose {FAMILIES}")
    if folder.suffix in PICKLES:
        raise ModelError(
            f"model: {folder.name!r} is a pickle, which can run code when opened, and is never "
            f"loaded; convert it to safetensors, or choose {FAMILIES}"
        )
    if folder.is_file():
        raise ModelError(f"model: {folder.name!r} is a single file, choose {FAMILIES}")
    file = folder / "model_index.json"
    if not file.is_file():
        raise ModelError(
            f"model: {folder.name!r} has no model_index.json, so it is no diffusion model; "
            f"choose {FAMILIES}"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"model: {folder.name}/model_index.json is not JSON ({error})") from None
    if not isinstance(index, dict):
        raise ModelError(f"model: {folder.name}/model_index.json holds no object")
    return index


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 over every weight file and the scheduler's settings, which decide what weights mean;
    on the way, checks that each weight file can be read to its end.

    Raises:
        ModelError: a truncated or damaged safetensors file, or a component without any.
    """
    files = sorted(f for f in folder.glob("*/*.safetensors") if f.parent.name != "evaluation")
    if not any(f.parent.name == "unet" for f in files):
        pickles = [f.name for f in folder.glob("unet/*") if f.suffix in PICKLES]
        found = f"only the pickle {pickles[0]}" if pickles else "no weights"
        raise ModelError(
            f"model: {folder.name!r} has {found} in its unet folder, wanted a .safetensors file"
        )
    digest = hashlib.sha256()
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"model: {folder.name}/{file.parent.name}/{file.name} is truncated or damaged "
                f"({error}); copy or download it again"
            ) from None
        digest.update(f"{file.parent.name}/{file.name}".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    for settings in sorted(folder.glob("scheduler/*.json")):
        digest.update(settings.read_bytes())
    return digest.hexdigest()


def _component(loader: Any, folder: Path, name: str, **options: Any) -> Any:
    """One part of a pipeline; whatever the library says of a bad one becomes a ``ModelError``."""
    try:
        return loader.from_pretrained(
            folder / name, local_files_only=True, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"model: {folder.name}/{name} cannot be loaded: {error}") from error


def _weights(loader: Any, folder: Path, name: str, device: torch.device, **options: Any) -> Any:
    """A frozen module of a pipeline, with every one of its tensors read from the file: the
    libraries fill what is missing with random numbers and only warn."""
    module, info = _component(loader, folder, name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model: {folder.name}/{name} lacks {len(missing)} tensors, {missing[0]!r} the first; "
            "copy or download it again"
        )
    return module.to(device).eval().requires_grad_(False)


def _scheduler(folder: Path) -> tuple[NoiseSchedule, dict[str, object]]:
    from diffusers import DDPMScheduler

    try:
        scheduler: Any = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        config = dict(scheduler.config)
        schedule = NoiseSchedule(scheduler.alphas_cumprod, str(config["prediction_type"]))
    except (OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"model: {folder.name}/scheduler cannot be loaded: {error}") from error
    return schedule, config


def _stable_diffusion(folder: Path, fingerprint: str, device: torch.device) -> ModelHandle:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from .stable_diffusion import StableDiffusionHandle

    float32 = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    unet = _weights(UNet2DConditionModel, folder, "unet", device, **float32)
    if unet.config["in_channels"] != unet.config["out_channels"]:
        raise ModelError(
            f"model: {folder.name!r} is an inpainting or edit model "
            f"({unet.config['in_channels']} input channels), which is not supported"
        )
    vae = _weights(AutoencoderKL, folder, "vae", device, **float32)
    text_encoder = _weights(CLIPTextModel, folder, "text_encoder", device, dtype=torch.float32)
    schedule, config = _scheduler(folder)
    scale = 2 ** (len(vae.config["block_out_channels"]) - 1)
    size = int(unet.config["sample_size"]) * scale
    return StableDiffusionHandle(
        info=ModelInfo(folder.name, "stable-diffusion", folder, fingerprint, size, "unet"),
        unet=unet,
        base=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_component(CLIPTokenizer, folder, "tokenizer"),
        schedule=schedule,
        scheduler_config=config,
    )


def _class_conditional(
    folder: Path, index: dict[str, Any], fingerprint: str, device: torch.device
) -> ModelHandle:
    from diffusers import UNet2DModel

    from .class_conditional import ClassConditionalHandle

    float32 = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    unet = _weights(UNet2DModel, folder, "unet", device, **float32)
    names = index["id2label"]
    wanted = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not wanted or set(names) != set(wanted):
        raise ModelError(f"model: id2label of {folder.name!r} must name the labels 0, 1, 2, …")
    if not isinstance(unet.config["sample_size"], int):
        raise ModelError(f"model: {folder.name}/unet/config.json must say its sample_size")
    if unet.config["num_class_embeds"] is None or unet.config["num_class_embeds"] < len(names):
        raise ModelError(f"model: {folder.name!r} has no class label for each of id2label's names")
    schedule, config = _scheduler(folder)
    size = int(unet.config["sample_size"])
    return ClassConditionalHandle(
        info=ModelInfo(folder.name, "class-conditional", folder, fingerprint, size, "unet"),
        unet=unet,
        base=unet,
        class_names=tuple(names[i] for i in wanted),
        schedule=schedule,
        scheduler_config=config,
    )
