"""Load a diffusers folder: recognize its family and refuse anything that is not supported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..foundation.json_file import JsonError, read_object
from ..foundation.plurals import count_of
from ..foundation.progress import LOADING, Progress
from ..foundation.safetensors_file import blocks
from . import flow_folder
from .errors import PICKLES, ModelError
from .families import FAMILIES
from .file_kinds import describe_unreadable
from .folder_check import LARGEST_SETTINGS, check_folder, edge_of
from .folder_parts import SHIFT, STATISTICS, read_clip, read_denoiser, read_vae
from .folder_source import FolderSource
from .noise_settings import read_scheduler
from .options import LoadOptions
from .protocol import ModelHandle

SUPPORTED = (
    "a diffusers folder of Stable Diffusion 1.x, 2.x, XL or 3, of Flux.1, of DiT, "
    "or of a UNet2DModel with class labels"
)
PIPELINES = ("StableDiffusion3Pipeline", "FluxPipeline")
TRANSFORMERS = {"SD3Transformer2DModel": "stable-diffusion-3", "FluxTransformer2DModel": "flux"}

SETTINGS = ("*.json", "*.txt", "*.model")  # files of a component besides its weights
PIXEL_CHANNELS = (1, 3)


def load_folder(
    folder: Path, device: torch.device, options: LoadOptions, progress: Progress
) -> ModelHandle:
    """Load a diffusers folder, ready for unlearning."""
    index = read_index(folder)
    build = _BUILDERS[recognise(folder, index)]
    if options.vae is not None:
        raise ModelError(
            f"vae: {options.vae.name!r} is for models in one file, but {folder.name!r} is a "
            "folder; use its own VAE"
        )
    if options.prediction != "auto":
        raise ModelError(
            f"prediction: {options.prediction!r} is for models in one file, but {folder.name!r} "
            "is a folder and contains this setting; choose 'auto'"
        )
    if options.precision == "mixed" and build in (_class_conditional, _dit):
        raise ModelError(
            f"precision: 'mixed' is for models with text prompts, but {folder.name!r} is "
            "class-conditional; choose 'auto'"
        )
    with progress.phase(LOADING, sum(file.stat().st_size for file in weight_files(folder, index))):
        fingerprint = folder_fingerprint(folder, index, progress)
        source = FolderSource(folder, index, fingerprint, device, options)
        try:
            return build(source)
        except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ModelError(
                f"model: the settings of {folder.name!r} are not valid ({error}); download it again"
            ) from error


def recognise(folder: Path, index: dict[str, Any]) -> str:
    """The name of the builder for the model that a ``model_index.json`` describes.

    Raises:
        ModelError: the model is not supported.
    """
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    if {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= parts:
        if "image_encoder" not in parts:
            return "stable-diffusion-xl" if "text_encoder_2" in parts else "stable-diffusion"
    elif "unet" in parts and "id2label" in index:
        return "class-conditional"
    elif {"transformer", "vae", "scheduler"} <= parts and "id2label" in index:
        return "dit"
    elif {"transformer", "vae", "text_encoder", "text_encoder_2", "scheduler"} <= parts:
        name = TRANSFORMERS.get(str(index["transformer"][-1]))
        # A pipeline with another class name is for other inputs: inpainting, or a control picture.
        if name is not None and index.get("_class_name") in PIPELINES:
            return name
    raise ModelError(f"model: {folder.name!r} is {index.get('_class_name')}; choose {SUPPORTED}")


def read_index(folder: Path) -> dict[str, Any]:
    """Read ``model_index.json`` of a diffusers folder.

    Raises:
        ModelError: there is no such folder or file, or it is not a JSON object.
    """
    if not folder.exists():
        raise ModelError(f"model: {str(folder)!r} does not exist, choose {SUPPORTED}")
    file = folder / "model_index.json"
    if not file.is_file():
        raise ModelError(
            f"model: {folder.name!r} has no model_index.json, so it is not a diffusion model; "
            f"choose {SUPPORTED}"
        )
    check_folder(folder)
    try:
        return read_object(file, LARGEST_SETTINGS)
    except JsonError as error:
        raise ModelError(f"model: {folder.name}/model_index.json {error}") from None


def component_names(index: Mapping[str, Any]) -> list[str]:
    """The components that a ``model_index.json`` names, each a subfolder of its own."""
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and any(value) and PurePath(name).name == name not in ("", "..")
    ]


def weight_files(folder: Path, index: Mapping[str, Any]) -> list[Path]:
    """The safetensors files of all components, sorted by name. Not those of folders that do not
    belong to the model, such as a backup or its evaluators."""
    return sorted(
        file for name in component_names(index) for file in (folder / name).glob("*.safetensors")
    )


def settings_files(folder: Path, index: Mapping[str, Any]) -> list[Path]:
    """The files beside the weights on which pictures depend, sorted by name: settings of all
    components, vocabularies of tokenizers, and ``model_index.json``."""
    names = {*component_names(index), "scheduler"}
    inside = [f for name in names for kind in SETTINGS for f in (folder / name).glob(kind)]
    return sorted(file for file in (folder / "model_index.json", *inside) if file.is_file())


def folder_fingerprint(folder: Path, index: Mapping[str, Any], progress: Progress) -> str:
    """SHA-256 over all weights and ``settings_files``. Also checks that each weight file is
    complete.

    Earlier versions left out most settings, and drew with those of a sampler in the scheduler's
    file. Their cached pictures are not used, because they have other fingerprints.

    Raises:
        ModelError: a safetensors file is truncated or damaged, or the denoiser has none.
    """
    files = weight_files(folder, index)
    denoisers = ("unet", "transformer")
    if not any(f.parent.name in denoisers for f in files):
        inside = [f for name in denoisers for f in folder.glob(f"{name}/*")]
        pickles = [f.name for f in inside if f.suffix in PICKLES]
        content = f"only the pickle {pickles[0]}" if pickles else "no weights"
        subfolder = inside[0].parent.name if inside else "unet"
        raise ModelError(
            f"model: {folder.name!r} has {content} in its {subfolder} folder; "
            "it needs a .safetensors file"
        )
    digest = hashlib.sha256()
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"model: in {folder.name}/{file.parent.name}, {describe_unreadable(file)} ({error})"
            ) from None
        digest.update(f"{file.parent.name}/{file.name}".encode())
        for block in blocks(file):
            digest.update(block)
            progress.tick(len(block))
    for file in settings_files(folder, index):
        digest.update(file.relative_to(folder).as_posix().encode())
        for block in blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _stable_diffusion(source: FolderSource) -> ModelHandle:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from . import autoencoder
    from .stable_diffusion import StableDiffusionHandle
    from .text import ClipPairText, ClipText

    folder, device = source.folder, source.device
    schedule, config = read_scheduler(folder, source.index)
    is_pair = "text_encoder_2" in source.index
    mixed = source.options.is_mixed(is_pair, device)
    unet = read_denoiser(UNet2DConditionModel, folder, "unet", device, mixed=mixed)
    if unet.config["in_channels"] != unet.config["out_channels"]:
        raise ModelError(
            f"model: {folder.name!r} is an inpainting or edit model "
            f"({unet.config['in_channels']} input channels), which is not supported"
        )
    if unet.config["time_cond_proj_dim"] is not None:
        raise ModelError(
            f"model: {folder.name!r} has the guidance scale as an input, so it was distilled to "
            "few steps, which is not supported; choose the model that it was distilled from"
        )
    first = read_clip(CLIPTextModel, folder, "", device, mixed=mixed)
    text = ClipText((first,))
    if is_pair:
        second = read_clip(CLIPTextModelWithProjection, folder, "_2", device, mixed=mixed)
        text = ClipPairText((first, second))
    unused = SHIFT if is_pair else (*SHIFT, *STATISTICS)
    vae = read_vae(folder, source.index, unet.config["in_channels"], device, unused)
    size = source.options.image_size or _edge(source, unet, "unet") * autoencoder.scale(vae)
    return StableDiffusionHandle(
        info=source.info(family_of(unet), size, schedule.prediction_type, "unet", mixed=mixed),
        denoiser=unet,
        base=unet,
        schedule=schedule,
        scheduler_config=config,
        vae=vae,
        text=text,
    )


def family_of(unet: Any) -> str:
    """The published family of a U-Net, by the width of its text embeddings and its number of
    blocks; ``"stable-diffusion"`` for any other."""
    widths = tuple(unet.config["block_out_channels"])
    for family in FAMILIES:
        blocks = len(family.unet["down_block_types"])
        if unet.config["cross_attention_dim"] == family.context and len(widths) == blocks:
            return family.name
    return "stable-diffusion"


def _class_names(folder: Path, index: dict[str, Any]) -> tuple[str, ...]:
    names = index["id2label"]
    labels = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not labels or set(names) != set(labels):
        raise ModelError(f"model: id2label of {folder.name!r} must name the labels 0, 1, 2, …")
    return tuple(names[i] for i in labels)


def _class_conditional(source: FolderSource) -> ModelHandle:
    from diffusers import UNet2DModel

    from .class_conditional import ClassConditionalHandle

    folder = source.folder
    schedule, config = read_scheduler(folder, source.index)
    names = _class_names(folder, source.index)
    unet = read_denoiser(UNet2DModel, folder, "unet", source.device)
    if unet.config["in_channels"] not in PIXEL_CHANNELS:
        raise ModelError(
            f"model: {folder.name}/unet has {count_of(unet.config['in_channels'], 'channel')}; "
            "choose a model in pixel space, with 1 channel (grey) or 3 (colour)"
        )
    _check_output(folder, "unet", unet.config)
    if unet.config["num_class_embeds"] is None or unet.config["num_class_embeds"] < len(names):
        raise ModelError(f"model: {folder.name!r} has no class label for each of id2label's names")
    size = _own_size(source, _edge(source, unet, "unet"))
    return ClassConditionalHandle(
        info=source.info("class-conditional", size, schedule.prediction_type, "unet", mixed=False),
        denoiser=unet,
        base=unet,
        schedule=schedule,
        scheduler_config=config,
        class_names=names,
    )


def _dit(source: FolderSource) -> ModelHandle:
    from diffusers import DiTTransformer2DModel

    from . import autoencoder
    from .class_conditional import DiTHandle

    folder, device = source.folder, source.device
    schedule, config = read_scheduler(folder, source.index)
    names = _class_names(folder, source.index)
    transformer = read_denoiser(DiTTransformer2DModel, folder, "transformer", device)
    if transformer.config["num_embeds_ada_norm"] != len(names):
        raise ModelError(f"model: {folder.name!r} has no class label for each of id2label's names")
    _check_output(folder, "transformer", transformer.config)
    channels = transformer.config["in_channels"]
    vae = read_vae(folder, source.index, channels, device, (*SHIFT, *STATISTICS))
    edge = _edge(source, transformer, "transformer")
    size = _own_size(source, edge * autoencoder.scale(vae))
    return DiTHandle(
        info=source.info("dit", size, schedule.prediction_type, "transformer", mixed=False),
        denoiser=transformer,
        base=transformer,
        schedule=schedule,
        scheduler_config=config,
        class_names=names,
        vae=vae,
    )


def _check_output(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    """A denoiser must have as many output channels as input channels, or twice as many with a
    learned variance."""
    inputs, outputs = config["in_channels"], config["out_channels"] or config["in_channels"]
    if outputs not in (inputs, 2 * inputs):
        raise ModelError(
            f"model: {folder.name}/{name} predicts {count_of(outputs, 'channel')} from {inputs}; "
            f"it must predict {inputs}, or {2 * inputs} with a learned variance"
        )


def _edge(source: FolderSource, denoiser: Any, name: str) -> int:
    file = f"{source.folder.name}/{name}/config.json"
    return edge_of(denoiser.config["sample_size"], f"sample_size of {file}")


def _own_size(source: FolderSource, size: int) -> int:
    if source.options.image_size not in (0, size):
        raise ModelError(
            f"image_size: {source.folder.name!r} supports {size} × {size} px only, "
            f"got {source.options.image_size}; choose 0"
        )
    return size


_BUILDERS = {
    "stable-diffusion": _stable_diffusion,
    "stable-diffusion-xl": _stable_diffusion,
    "class-conditional": _class_conditional,
    "dit": _dit,
    "stable-diffusion-3": flow_folder.stable_diffusion_3,
    "flux": flow_folder.flux,
}
