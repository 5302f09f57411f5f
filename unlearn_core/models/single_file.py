"""Stable Diffusion from one safetensors file in the original (LDM) layout, with no internet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..foundation.progress import LOADING, Progress
from ..foundation.safetensors_file import (
    DTYPES,
    Header,
    file_hash,
    read_header,
    read_tensors,
)
from .denoiser import NoiseSchedule
from .errors import ModelError
from .families import FAMILIES, OTHERS, SUPPORTED, UNET, Family, TextPart
from .options import LoadOptions
from .protocol import ModelHandle, ModelInfo
from .weights import keep_vectors_exact

# ComfyUI's rule of thumb for 2.x, whose files do not say what they predict: this tensor varies
# more in the models trained on velocity.
V_WITNESS, V_SPREAD = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09
OTHER_NOISE = ("edm_mean", "edm_vpred.sigma_max", "ztsnr")
VAE_PREFIXES = ("first_stage_model.", "vae.", "")


def read_checkpoint(file: Path) -> tuple[Header, Family]:
    """The header of a supported file and the family it belongs to.

    Raises:
        ModelError: for anything else; says what the file is where it can be told.
    """
    try:
        header = read_header(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"model: {what_it_is(file)} ({error}); choose {SUPPORTED}") from None
    return header, recognise(file.name, header)


def what_it_is(file: Path) -> str:
    """Why a file that does not read as safetensors does not."""
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
    except OSError:
        return f"{file.name!r} cannot be opened"
    if start.startswith(b"GGUF"):
        return f"{file.name!r} is a GGUF file, whose weights are quantised"
    if start.startswith((b"PK", b"\x80")):
        return f"{file.name!r} is a pickle under another name, which is never loaded"
    if start.startswith((b"<", b"version ")):
        return f"{file.name!r} is a web page or a link to a file, not the file; download it again"
    return f"{file.name!r} is truncated or damaged; copy or download it again"


def recognise(name: str, header: Header) -> Family:
    """The family, by the widths of what the U-Net attends to.

    Raises:
        ModelError: another architecture, an inpainting or edit model, quantised weights.
    """
    shapes = {key: entry.shape for key, entry in header.tensors.items()}
    attended = [
        shape for key, shape in shapes.items() if key.startswith(UNET) and "attn2.to_k" in key
    ]
    first = shapes.get(UNET + "input_blocks.0.0.weight")
    if first is None or not attended:
        found = next((said for piece, said in OTHERS if any(piece in key for key in shapes)), None)
        found = found or "no model that this pack knows"
        raise ModelError(f"model: {name!r} is {found}; choose {SUPPORTED}")
    if first[1] != 4:
        what = {8: "an edit (InstructPix2Pix) model", 9: "an inpainting model"}.get(first[1])
        what = what or f"a model with {first[1]} input channels"
        raise ModelError(f"model: {name!r} is {what}, which is not supported; choose {SUPPORTED}")
    context = attended[0][-1]
    pooled = shapes.get(UNET + "label_emb.0.0.weight", (0, None))[1]
    for family in FAMILIES:
        if (family.context, family.pooled) == (context, pooled):
            break
    else:
        known = {1280: "the SDXL refiner", 1024: "a 2.x unCLIP model"}.get(context, "unknown")
        raise ModelError(f"model: {name!r} is {known} (text width {context}); choose {SUPPORTED}")
    in_unet = (entry.dtype for key, entry in header.tensors.items() if key.startswith(UNET))
    unusable = next((dtype for dtype in in_unet if dtype not in DTYPES), None)
    if unusable is not None:
        raise ModelError(
            f"model: {name!r} holds {unusable} numbers, which cannot be trained; "
            "choose its fp16, bf16 or fp32 version"
        )
    other = next((key for key in OTHER_NOISE if key in shapes), None)
    if other is not None:
        raise ModelError(
            f"model: {name!r} was trained with another noise schedule ({other!r}), "
            f"which is not supported; choose {SUPPORTED}"
        )
    return family


def load_single_file(
    file: Path, device: torch.device, options: LoadOptions, progress: Progress
) -> ModelHandle:
    """Open a checkpoint as ComfyUI and other UIs do, ready for unlearning.

    Memory: one model in the dtype it is kept in, and one component in its file's.
    """
    header, family = read_checkpoint(file)
    with progress.phase(LOADING, file.stat().st_size):
        fingerprint = file_hash(file, progress)
        return _build(file, header, family, fingerprint, device, options)


def _build(
    file: Path,
    header: Header,
    family: Family,
    fingerprint: str,
    device: torch.device,
    options: LoadOptions,
) -> ModelHandle:
    from diffusers import DDPMScheduler

    from .stable_diffusion import StableDiffusionHandle

    mixed = options.is_mixed(family.name == "sdxl", device)
    unet = _unet(file, header, family, None if mixed else torch.float32).to(device)
    text = _text(file, header, family, None if mixed else torch.float32, device)
    vae = _vae(options.vae or file, family, is_checkpoint=options.vae is None).to(device)
    prediction = options.prediction
    if prediction == "auto":
        prediction = predicts(file, header, family)
    size = options.image_size or family.own_size(prediction)
    config = {**family.scheduler, "prediction_type": prediction}
    scheduler: Any = DDPMScheduler.from_config(config)
    other_vae = file_hash(options.vae) if options.vae else ""
    return StableDiffusionHandle(
        info=ModelInfo(
            file.stem, family.name, file, fingerprint, size, prediction, "", mixed, other_vae
        ),
        denoiser=unet,
        base=unet,
        vae=vae,
        text=text,
        schedule=NoiseSchedule(scheduler.alphas_cumprod, prediction),
        scheduler_config=dict(scheduler.config),
    )


def predicts(file: Path, header: Header, family: Family) -> str:
    """``"epsilon"`` or ``"v_prediction"``, by what the file says, else by its weights."""
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction") or "v_pred" in header.tensors:
        return "v_prediction"
    if not said and family.name == "sd2" and V_WITNESS in header.tensors:
        witness = read_tensors(file, [V_WITNESS], torch.float32)[V_WITNESS]
        if witness.std(correction=0) > V_SPREAD:
            return "v_prediction"
    return "epsilon"


def unet_config(header: Header, family: Family) -> dict[str, Any]:
    """Settings of diffusers' U-Net; the widths of its blocks are read from the file."""
    widths = [header.tensors[UNET + "input_blocks.0.0.weight"].shape[0]]
    for block in range(1, len(family.unet["down_block_types"])):
        convolution = header.tensors.get(
            UNET + f"input_blocks.{3 * block + 1}.0.in_layers.2.weight"
        )
        widths.append(convolution.shape[0] if convolution else widths[-1])
    heads = {}
    if family.head_channels is not None:
        heads["attention_head_dim"] = tuple(width // family.head_channels for width in widths)
    size = family.image_size // 8
    return {**family.unet, "block_out_channels": tuple(widths), "sample_size": size, **heads}


def ldm_names(header: Header, config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers' name -> key in the file, for every tensor of the U-Net.

    diffusers' own converter only renames, so that given keys for tensors it returns the mapping.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    keys = {key: key for key in header.tensors if key.startswith(UNET)}
    return convert_ldm_unet_checkpoint(keys, dict(config))


def _unet(file: Path, header: Header, family: Family, dtype: torch.dtype | None) -> Any:
    from diffusers import UNet2DConditionModel

    config = unet_config(header, family)
    names = ldm_names(header, config)
    by_key = read_tensors(file, names.values(), dtype)
    tensors = {name: by_key[key] for name, key in names.items()}
    return _filled(file.name, "U-Net", lambda: UNet2DConditionModel(**config), tensors)


def _text(
    file: Path, header: Header, family: Family, dtype: torch.dtype | None, device: torch.device
) -> Any:
    from .text import Clip, ClipPairText, ClipText, clip_tokenizer

    clips = tuple(
        Clip(_text_part(file, header, part, dtype).to(device), clip_tokenizer(part.pad_token))
        for part in family.text
    )
    return ClipText(clips) if len(clips) == 1 else ClipPairText(clips)


def _text_part(file: Path, header: Header, part: TextPart, dtype: torch.dtype | None) -> Any:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    keys = [key for key in header.tensors if key.startswith(part.prefix)]
    if not keys:
        raise ModelError(
            f"model: {file.name!r} has no text encoder ({part.prefix}…); "
            "choose a file that holds the whole model"
        )
    # Only SDXL's second encoder is asked for its pooled embedding, which needs the projection.
    kind = CLIPTextModelWithProjection if "conditioner" in part.prefix and part.open_clip else None
    config = CLIPTextConfig(**part.config)
    with torch.device("meta"):
        model = (kind or CLIPTextModel)(config)
    tensors = read_tensors(file, keys, dtype)
    if part.open_clip:
        tensors = convert_open_clip_checkpoint(model, tensors, prefix=part.prefix)
    else:
        tensors = {key.removeprefix(part.prefix): value for key, value in tensors.items()}
    # Newer transformers dropped the level "text_model.", and some old files lack it.
    wanted = {name.removeprefix("text_model."): name for name in model.state_dict()}
    renamed = {
        wanted[key.removeprefix("text_model.")]: value
        for key, value in tensors.items()
        if key.removeprefix("text_model.") in wanted
    }
    return _filled(file.name, "text encoder", lambda: (kind or CLIPTextModel)(config), renamed)


def _vae(file: Path, family: Family, *, is_checkpoint: bool) -> Any:
    """In fp32 always: SDXL's overflows in fp16."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    field = "model" if is_checkpoint else "vae"
    try:
        header = read_header(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{field}: {what_it_is(file)} ({error})") from None
    prefix = next((p for p in VAE_PREFIXES if p + "decoder.conv_in.weight" in header.tensors), None)
    if prefix is None:
        cure = "choose a file as vae" if is_checkpoint else "choose a VAE of this family"
        raise ModelError(f"{field}: {file.name!r} holds no VAE; {cure}")
    keys = [k for k in header.tensors if k.startswith((prefix + "encoder.", prefix + "decoder."))]
    keys += [k for k in header.tensors if "quant_conv." in k and k.startswith(prefix)]
    tensors = {
        key.removeprefix(prefix): value
        for key, value in read_tensors(file, keys, torch.float32).items()
    }
    config: dict[str, Any] = dict(family.vae)
    if not any("down_blocks." in key for key in tensors):
        tensors = convert_ldm_vae_checkpoint(tensors, config)
    return _filled(file.name, "VAE", lambda: AutoencoderKL(**config), tensors)


def _filled(
    name: str, part: str, build: Callable[[], nn.Module], tensors: dict[str, Tensor]
) -> nn.Module:
    """A frozen module whose every tensor comes from the file."""
    try:
        with torch.device("meta"):
            empty = build()
    except ValueError as error:
        raise ModelError(f"model: the {part} of {name!r} cannot be: {error}") from None
    wanted = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    given = {key: tuple(tensors[key].shape) for key in tensors}
    wrong = sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
    if wrong:
        key = wrong[0]
        raise ModelError(
            f"model: the {part} of {name!r} is built differently: {key!r} should be "
            f"{list(wanted[key]) if key in wanted else 'absent'}, is "
            f"{list(given[key]) if key in given else 'absent'} ({len(wrong)} such tensors); "
            f"choose {SUPPORTED}"
        )
    empty.load_state_dict(tensors, assign=True)
    _restore_buffers(empty, build)
    keep_vectors_exact(empty)
    return empty.eval().requires_grad_(False)


def _restore_buffers(module: nn.Module, build: Callable[[], nn.Module]) -> None:
    """Constants that no file holds (position numbers) were left without values."""
    for path, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise AssertionError(f"{path}.{name} has no value")
                part.register_buffer(
                    name, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False
                )
