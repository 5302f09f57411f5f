"""Load Stable Diffusion offline from one safetensors file in the original (LDM) layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..foundation.finite import non_finite
from ..foundation.plurals import count_of
from ..foundation.progress import LOADING, Progress
from ..foundation.safetensors_file import (
    Header,
    file_hash,
    read_header,
    read_tensors,
)
from .denoiser import NoiseSchedule
from .errors import ModelError
from .families import FAMILIES, SUPPORTED, UNET, Family, TextPart
from .file_kinds import check_dtypes, describe_unreadable, kind_of_weights
from .options import LoadOptions
from .protocol import ModelHandle, ModelInfo
from .weights import vectors_to_fp32

# ComfyUI's heuristic for 2.x, whose files do not contain the prediction type: in models that
# predict velocity, the standard deviation of this tensor is above ``V_SPREAD``.
V_TENSOR, V_SPREAD = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09
# Keys of models with the noise of EDM (Karras et al. 2022), such as Playground 2.5 and CosXL.
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
# Keys without values, as in NoobAI-XL: velocity prediction, and zero terminal SNR.
V_KEY, ZERO_SNR_KEY = "v_pred", "ztsnr"
NAMES = {
    "eps": "epsilon",
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_pred": "v_prediction",
    "v_prediction": "v_prediction",
}
"""The values of ``modelspec.prediction_type`` that files contain, and their meaning."""
VAE_PREFIXES = ("first_stage_model.", "vae.", "")


def read_checkpoint(file: Path) -> tuple[Header, Family]:
    """The header of a supported file, and its family.

    Raises:
        ModelError: for any other file; the message describes it if it is recognized.
    """
    try:
        header = read_header(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"model: {describe_unreadable(file)} ({error}); choose {SUPPORTED}"
        ) from None
    return header, recognise(file.name, header)


def recognise(name: str, header: Header) -> Family:
    """The family, by the widths of the embeddings that the U-Net attends to.

    Raises:
        ModelError: another architecture, an inpainting or edit model, quantised weights.
    """
    shapes = {key: entry.shape for key, entry in header.tensors.items()}
    attention_keys = [
        shape for key, shape in shapes.items() if key.startswith(UNET) and "attn2.to_k" in key
    ]
    first = shapes.get(UNET + "input_blocks.0.0.weight")
    if first is None or not attention_keys:
        kind = kind_of_weights(shapes) or "not a model that this pack supports"
        raise ModelError(f"model: {name!r} is {kind}; choose {SUPPORTED}")
    labels = shapes.get(UNET + "label_emb.0.0.weight", (0, 0))
    if any(len(shape) < 2 for shape in (first, attention_keys[0], labels)):
        raise ModelError(
            f"model: {name!r} has weights with too few dimensions; the file is damaged: get it "
            f"again, or choose {SUPPORTED}"
        )
    if first[1] != 4:
        kind = {8: "an edit (InstructPix2Pix) model", 9: "an inpainting model"}.get(first[1])
        kind = kind or f"a model with {first[1]} input channels"
        raise ModelError(f"model: {name!r} is {kind}, which is not supported; choose {SUPPORTED}")
    context = attention_keys[0][-1]
    pooled = labels[1] or None
    for family in FAMILIES:
        if (family.context, family.pooled) == (context, pooled):
            break
    else:
        kind = {1280: "the SDXL refiner", 1024: "a 2.x unCLIP model"}.get(context, "unknown")
        raise ModelError(f"model: {name!r} is {kind} (text width {context}); choose {SUPPORTED}")
    check_dtypes((entry for key, entry in header.tensors.items() if key.startswith(UNET)), name)
    other = next((key for key in EDM if key in shapes), None)
    if other is not None:
        raise ModelError(
            f"model: {name!r} was trained with another noise schedule, EDM ({other!r}), "
            f"which is not supported; choose {SUPPORTED}"
        )
    return family


def load_single_file(
    file: Path, device: torch.device, options: LoadOptions, progress: Progress
) -> ModelHandle:
    """Load a checkpoint like ComfyUI and other UIs, ready for unlearning.

    Peak memory: the loaded model, and one component in the dtype of the file.
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
    config = {
        **family.scheduler,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": has_zero_snr(file, header, prediction),
    }
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
    """``"epsilon"`` or ``"v_prediction"``, by the file's keys and metadata, or else by its weights.

    Raises:
        ModelError: the metadata describe another prediction.
    """
    metadata = header.metadata.get("modelspec.prediction_type", "").lower().replace("-", "_")
    if metadata and metadata not in NAMES:
        raise ModelError(
            f"model: {file.name!r} predicts {metadata!r} by its modelspec.prediction_type, which "
            f"is not supported for {family.label}; if its metadata are wrong, choose the right "
            "prediction, 'epsilon' or 'v_prediction', otherwise choose another model"
        )
    if V_KEY in header.tensors:
        return "v_prediction"
    if not metadata and family.name == "sd2" and V_TENSOR in header.tensors:
        bias = read_tensors(file, [V_TENSOR], torch.float32)[V_TENSOR]
        if bias.std(correction=0) > V_SPREAD:
            return "v_prediction"
    return NAMES.get(metadata, "epsilon")


def has_zero_snr(file: Path, header: Header, prediction: str) -> bool:
    """Whether the model was trained with zero terminal SNR (Lin et al. 2024): noise alone at the
    last timestep.

    Raises:
        ModelError: the model predicts noise, which there describes no picture.
    """
    if ZERO_SNR_KEY not in header.tensors:
        return False
    if prediction == "epsilon":
        raise ModelError(
            f"model: {file.name!r} was trained with zero terminal SNR ({ZERO_SNR_KEY!r}), which "
            "does not go with the prediction of noise; choose prediction 'v_prediction'"
        )
    return True


def unet_config(header: Header, family: Family) -> dict[str, Any]:
    """Settings of diffusers' U-Net; the widths of the blocks come from the file."""
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

    diffusers' converter only renames. Given keys in place of tensors, it returns the mapping.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    keys = {key: key for key in header.tensors if key.startswith(UNET)}
    return convert_ldm_unet_checkpoint(keys, dict(config))


def _unet(file: Path, header: Header, family: Family, dtype: torch.dtype | None) -> Any:
    from diffusers import UNet2DConditionModel

    config = unet_config(header, family)
    names = ldm_names(header, config)
    by_key = _read(file, names.values(), dtype)
    tensors = {name: by_key[key] for name, key in names.items()}
    return _with_weights(file.name, "U-Net", lambda: UNet2DConditionModel(**config), tensors)


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
            "choose a file that contains the complete model"
        )
    # Only SDXL's second encoder provides a pooled embedding, which needs the projection.
    kind = CLIPTextModelWithProjection if "conditioner" in part.prefix and part.open_clip else None
    config = CLIPTextConfig(**part.config)
    with torch.device("meta"):
        model = (kind or CLIPTextModel)(config)
    tensors = _read(file, keys, dtype)
    if part.open_clip:
        tensors = convert_open_clip_checkpoint(model, tensors, prefix=part.prefix)
    else:
        tensors = {key.removeprefix(part.prefix): value for key, value in tensors.items()}
    # Newer transformers omit the level "text_model.", and so do some old files.
    names = {name.removeprefix("text_model."): name for name in model.state_dict()}
    renamed = {
        names[key.removeprefix("text_model.")]: value
        for key, value in tensors.items()
        if key.removeprefix("text_model.") in names
    }
    return _with_weights(
        file.name, "text encoder", lambda: (kind or CLIPTextModel)(config), renamed
    )


def _vae(file: Path, family: Family, *, is_checkpoint: bool) -> Any:
    """The VAE of a file, always in fp32: SDXL's overflows in fp16."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    field = "model" if is_checkpoint else "vae"
    try:
        header = read_header(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{field}: {describe_unreadable(file)} ({error})") from None
    prefix = next((p for p in VAE_PREFIXES if p + "decoder.conv_in.weight" in header.tensors), None)
    if prefix is None:
        if is_checkpoint:
            raise ModelError(f"{field}: {file.name!r} contains no VAE; choose a file as vae")
        kind = kind_of_weights(header.tensors)
        reason = f"is {kind}" if kind else "contains no VAE"
        raise ModelError(f"{field}: {file.name!r} {reason}; choose a VAE of this family")
    keys = [k for k in header.tensors if k.startswith((prefix + "encoder.", prefix + "decoder."))]
    keys += [k for k in header.tensors if "quant_conv." in k and k.startswith(prefix)]
    tensors = {
        key.removeprefix(prefix): value
        for key, value in _read(file, keys, torch.float32, field).items()
    }
    config: dict[str, Any] = dict(family.vae)
    if not any("down_blocks." in key for key in tensors):
        tensors = convert_ldm_vae_checkpoint(tensors, config)
    return _with_weights(file.name, "VAE", lambda: AutoencoderKL(**config), tensors, field)


def _read(
    file: Path, keys: Iterable[str], dtype: torch.dtype | None, field: str = "model"
) -> dict[str, Tensor]:
    """The tensors of a component.

    Raises:
        ModelError: a tensor holds NaN or infinity.
    """
    tensors = read_tensors(file, keys, dtype)
    if fault := non_finite(tensors.items()):
        raise ModelError(
            f"{field}: {file.name!r} holds {fault}; download it again, or choose another file"
        )
    return tensors


def _with_weights(
    name: str,
    part: str,
    build: Callable[[], nn.Module],
    tensors: dict[str, Tensor],
    field: str = "model",
) -> nn.Module:
    """A frozen module with all tensors from the file."""
    try:
        with torch.device("meta"):
            module = build()
    except ValueError as error:
        raise ModelError(
            f"{field}: the {part} of {name!r} is invalid: {error}; choose {SUPPORTED}"
        ) from None
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    actual = {key: tuple(tensors[key].shape) for key in tensors}
    keys = expected.keys() | actual.keys()
    wrong = sorted(key for key in keys if expected.get(key) != actual.get(key))
    if wrong:
        key = wrong[0]
        if all(key not in actual for key in wrong) and 2 * len(wrong) < len(expected):
            raise ModelError(
                f"{field}: the {part} of {name!r} lacks {len(wrong)} of "
                f"{count_of(len(expected), 'tensor')}, {key!r} is the first; download it again, or "
                "choose a complete file"
            )
        raise ModelError(
            f"{field}: the {part} of {name!r} has another architecture: {key!r} should be "
            f"{list(expected[key]) if key in expected else 'absent'}, is "
            f"{list(actual[key]) if key in actual else 'absent'} "
            f"({count_of(len(wrong), 'such tensor')}); choose {SUPPORTED}"
        )
    module.load_state_dict(tensors, assign=True)
    _restore_buffers(module)
    vectors_to_fp32(module)
    return module.eval().requires_grad_(False)


def _restore_buffers(module: nn.Module) -> None:
    """Set the buffers that files do not contain: position ids."""
    for path, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise AssertionError(f"{path}.{name} has no value")
                part.register_buffer(
                    name, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False
                )
