"""Recognizing a single file by its header, before it is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unlearn_core.models.families import FAMILIES
from unlearn_core.models.load import ModelError, check_model, load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.single_file import (
    V_TENSOR,
    _vae,
    _with_weights,
    has_zero_snr,
    predicts,
    read_checkpoint,
)
from unlearn_core.models.text import clip_tokenizer

from ..tiny_models import tokenize

UNET = "model.diffusion_model."
FIRST = UNET + "input_blocks.0.0.weight"
ATTENDED = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
LABELS = UNET + "label_emb.0.0.weight"


def write(
    file: Path,
    channels: int = 4,
    width: int = 32,
    context: int = 768,
    dtype: torch.dtype = torch.float16,
    **more: int,
) -> Path:
    """Write a file with only the tensors by which it is recognized."""
    tensors = {FIRST: torch.zeros(width, channels, 1, 1), ATTENDED: torch.zeros(1, context)}
    if "pooled" in more:
        tensors[LABELS] = torch.zeros(1, more["pooled"])
    save_file({name: value.to(dtype) for name, value in tensors.items()}, file)
    return file


@pytest.mark.parametrize(
    ("shapes", "label"),
    [
        ({"context": 768}, "Stable Diffusion 1.x"),
        ({"context": 1024}, "Stable Diffusion 2.x"),
        ({"context": 2048, "pooled": 2816}, "Stable Diffusion XL"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_families(tmp_path: Path, shapes: dict[str, Any], label: str, dtype: torch.dtype) -> None:
    assert check_model(write(tmp_path / "model.safetensors", dtype=dtype, **shapes)) == label


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"channels": 9}, "is an inpainting model, which is not supported"),
        ({"channels": 8}, r"is an edit \(InstructPix2Pix\) model"),
        ({"channels": 5}, "is a model with 5 input channels"),
        ({"context": 1280, "pooled": 2560}, "is the SDXL refiner"),
        ({"context": 1024, "pooled": 2048}, "is a 2.x unCLIP model"),
        ({"context": 2048}, r"is unknown \(text width 2048\)"),
        ({"dtype": torch.float8_e4m3fn}, "contains F8_E4M3 numbers, .*choose its fp16"),
    ],
)
def test_related_models_that_are_not_supported(
    tmp_path: Path, shapes: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "model.safetensors", **shapes)
    with pytest.raises(ModelError, match=rf"^model: 'model.safetensors' {message}") as error:
        load_model(file)
    assert "choose" in str(error.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA file"),
        ("transformer.blocks.0.attn.lora_A.weight", "a LoRA file"),
        ("double_blocks.0.img_attn.proj.weight", "a Flux or similar model"),
        ("model.diffusion_model.joint_blocks.0.x.weight", "a Stable Diffusion 3 model"),
        ("control_model.time_embed.0.weight", "a ControlNet"),
        ("first_stage_model.decoder.conv_in.weight", "a model without a U-Net"),
        ("decoder.up.0.block.0.conv1.weight", "a VAE alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "a U-Net alone"),
        ("text_model.encoder.layers.0.fc1.weight", "a text encoder alone"),
        ("string_to_param", "a textual inversion embedding"),
        ("lora.x.hada_w1_a", "a LoRA file .LoHa."),
        ("vision_model.embeddings.x", "a CLIP for pictures"),
        ("conv_first.weight", "an upscaler"),
        ("something.else", "not a model that this pack supports"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, key: str, message: str) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match=f"'file.safetensors' is {message}.*choose Stable"):
        check_model(tmp_path / "file.safetensors")


@pytest.mark.parametrize("key", [FIRST, ATTENDED, LABELS])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_weights_with_too_few_dimensions(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    shapes = {FIRST: (8, 4, 1, 1), ATTENDED: (1, 768), LABELS: (1, 2816), key: shape}
    file = tmp_path / "file.safetensors"
    save_file({name: torch.zeros(form) for name, form in shapes.items()}, file)
    with pytest.raises(ModelError, match="'file.safetensors' has weights with too few dimensions"):
        check_model(file)


@pytest.mark.parametrize("key", ["edm_mean", "edm_std", "edm_vpred.sigma_max"])
def test_other_noise_schedules(tmp_path: Path, key: str) -> None:
    tensors = {FIRST: torch.zeros(8, 4, 1, 1), ATTENDED: torch.zeros(1, 768), key: torch.zeros(1)}
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match=f"another noise schedule, EDM \\('{key}'\\)"):
        check_model(tmp_path / "file.safetensors")


def test_files_that_are_not_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    whole = write(file).read_bytes()
    for content, message in (
        (whole[:-3], f"is truncated: it has {len(whole) - 3:,} of {len(whole):,} bytes"),
        (whole[:100], "is truncated: it has 100 bytes and ends within its header"),
        (whole[:5], "is truncated or damaged: it has only 5 bytes"),
        (whole + b"more", f"is damaged: it has {len(whole) + 4:,} bytes, but its header describes"),
        (whole[:8] + b"{" + whole[9:].replace(b":", b";", 1), "is damaged: its header is not"),
        (b"", "is empty"),
        (bytes(1000), "begins with zeros, like an unfinished download"),
        (b"nonsense" * 100, "is not a safetensors file, or its beginning is damaged"),
        (b"GGUF\x03\x00\x00\x00" + whole, "is a GGUF file"),
        (b"<!DOCTYPE html><html>", "is a web page and not the file"),
        (b"\n  <html><head>", "is a web page and not the file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a link to a file in Git LFS"),
        (b'{"error": "Invalid credentials in Authorization header"}', "is a text .JSON. and not"),
        (b"\x80\x04\x95 pickled", "is a pickle under another name"),
        (b"\x89PNG\r\n\x1a\n" + whole, "is a picture under another name"),
        (b"\x1f\x8b\x08" + whole, "is an archive; unpack it first"),
        (b"PK\x03\x04" + whole, "is a truncated archive or pickle"),
    ):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=f"'model.safetensors' {message}"):
            check_model(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04.")
    with pytest.raises(ModelError, match="is a pickle under another name"):
        check_model(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.safetensors", whole)
    with pytest.raises(ModelError, match="is an archive; unpack it first"):
        check_model(file)


@pytest.mark.parametrize("first", [0x80, 0x50, 0x47, 0x3C, 0x7B, 0x00])
def test_a_truncated_file_is_truncated_whatever_its_first_byte(tmp_path: Path, first: int) -> None:
    """The first byte belongs to the length of the header, and 1 in 256 files begins like a
    pickle."""
    file = tmp_path / "model.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (0x0400 + first - len(header))
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert file.read_bytes()[0] == first
    with pytest.raises(ModelError, match="is truncated: it has [0-9,]+ of [0-9,]+ bytes"):
        check_model(file)


@pytest.mark.parametrize(
    ("key", "kind"),
    [("lora_unet_x.lora_up.weight", "a LoRA file"), ("input_blocks.0.0.weight", "a U-Net alone"),
     ("text_model.embeddings.x", "a text encoder alone"), ("a.b", "contains no VAE")],
)  # fmt: skip
def test_a_file_that_is_no_vae(tmp_path: Path, key: str, kind: str) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match=f"^vae: 'file.safetensors' .*{kind}.*; choose a VAE"):
        _vae(tmp_path / "file.safetensors", FAMILIES[0], is_checkpoint=False)


def test_missing_tensors_are_named_with_their_file() -> None:
    tensors = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict()
    del tensors["1.bias"]
    message = "^vae: the VAE of 'x.safetensors' lacks 1 of 4 tensors, '1.bias' is the first"
    with pytest.raises(ModelError, match=message):
        _with_weights(
            "x.safetensors", "VAE", lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            tensors, "vae",
        )  # fmt: skip


def test_a_recognized_file_with_missing_tensors(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"the U-Net of 'model.safetensors' has another architecture"
    ):
        load_model(file)
    with pytest.raises(ModelError, match=r"the U-Net of 'model.safetensors' is invalid: .*\(8\)"):
        load_model(write(file, width=8))


@pytest.mark.parametrize("size", [-64, 63, 100, 8256, 64.5])
def test_impossible_picture_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="image_size must be a multiple of 64 up to 8192") as error:
        LoadOptions(image_size=size)
    assert repr(size) in str(error.value)


def test_options_for_single_files_are_refused_for_folders(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vae: 'x.safetensors' is for models in one file"):
        load_model(sd_folder, options=LoadOptions(vae=tmp_path / "x.safetensors"))
    with pytest.raises(ModelError, match="prediction: 'epsilon' is for models in one file"):
        load_model(sd_folder, options=LoadOptions(prediction="epsilon"))


def test_mixed_precision_is_refused_where_it_has_no_effect(
    class_folder: Path, dit_folder: Path
) -> None:
    for folder in (class_folder, dit_folder):
        with pytest.raises(ModelError, match="precision: 'mixed' is for models with text prompts"):
            load_model(folder, options=LoadOptions(precision="mixed"))


def test_a_folder_at_another_picture_size(sd_folder: Path, class_folder: Path) -> None:
    assert load_model(sd_folder, options=LoadOptions(image_size=64)).latent_shape == (4, 32, 32)
    with pytest.raises(ModelError, match="image_size: 'tiny-class' supports 8 × 8 px only"):
        load_model(class_folder, options=LoadOptions(image_size=64))


def test_training_sizes_of_the_families() -> None:
    sizes = {f.name: (f.own_size("epsilon"), f.own_size("v_prediction")) for f in FAMILIES}
    assert sizes == {"sd1": (512, 512), "sd2": (512, 768), "sdxl": (1024, 1024)}


@pytest.mark.parametrize(
    ("context", "spread", "metadata", "expected"),
    [
        (1024, 0.05, {}, "epsilon"),
        (1024, 0.2, {}, "v_prediction"),
        (1024, 0.2, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        (1024, 0.05, {"modelspec.prediction_type": "v"}, "v_prediction"),
        (768, 0.2, {}, "epsilon"),
    ],
)
def test_the_prediction_type_of_a_file(
    tmp_path: Path, context: int, spread: float, metadata: dict[str, str], expected: str
) -> None:
    file = tmp_path / "model.safetensors"
    witness = spread * torch.randn(320, generator=torch.Generator().manual_seed(0))
    tensors = {FIRST: torch.zeros(32, 4, 1, 1), ATTENDED: torch.zeros(1, context)}
    save_file({**tensors, V_TENSOR: witness}, file, metadata)
    assert predicts(file, *read_checkpoint(file)) == expected


def with_keys(file: Path, *keys: str, context: int = 2048) -> Path:
    """A file with keys without values, as in NoobAI-XL."""
    tensors = {FIRST: torch.zeros(32, 4, 1, 1), ATTENDED: torch.zeros(1, context)}
    if context == 2048:
        tensors[LABELS] = torch.zeros(1, 2816)
    save_file({**tensors, **{key: torch.zeros(0) for key in keys}}, file)
    return file


@pytest.mark.parametrize("context", [768, 1024, 2048])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_keys_of_velocity_prediction_and_zero_terminal_snr(
    tmp_path: Path, context: int, zero_snr: bool
) -> None:
    keys = ("v_pred", "ztsnr") if zero_snr else ("v_pred",)
    file = with_keys(tmp_path / "model.safetensors", *keys, context=context)
    header, family = read_checkpoint(file)
    prediction = predicts(file, header, family)
    assert prediction == "v_prediction"
    assert has_zero_snr(file, header, prediction) is zero_snr


def test_zero_terminal_snr_with_the_prediction_of_noise(tmp_path: Path) -> None:
    """By the file, or by the user's choice."""
    file = with_keys(tmp_path / "model.safetensors", "ztsnr")
    header, family = read_checkpoint(file)
    with pytest.raises(ModelError, match=r"zero terminal SNR \('ztsnr'\).*choose prediction 'v_pr"):
        has_zero_snr(file, header, predicts(file, header, family))
    assert has_zero_snr(file, header, "v_prediction")


@pytest.mark.parametrize("metadata", ["flow", "FLOW", "rectified_flow", "sample", "edm"])
@pytest.mark.parametrize("context", [768, 2048])
def test_a_file_that_predicts_something_else(tmp_path: Path, metadata: str, context: int) -> None:
    tensors = {FIRST: torch.zeros(32, 4, 1, 1), ATTENDED: torch.zeros(1, context)}
    if context == 2048:
        tensors[LABELS] = torch.zeros(1, 2816)
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, {"modelspec.prediction_type": metadata})
    message = f"'model.safetensors' predicts '{metadata.lower()}' by its modelspec.prediction_type"
    with pytest.raises(ModelError, match=message):
        predicts(file, *read_checkpoint(file))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [("eps", "epsilon"), ("Epsilon", "epsilon"), ("v-prediction", "v_prediction")],
)
def test_other_spellings_of_the_prediction_type(
    tmp_path: Path, metadata: str, expected: str
) -> None:
    tensors = {FIRST: torch.zeros(32, 4, 1, 1), ATTENDED: torch.zeros(1, 768)}
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, {"modelspec.prediction_type": metadata})
    assert predicts(file, *read_checkpoint(file)) == expected


def test_prompts_are_tokenized_as_by_the_published_tokenizer() -> None:
    """Token numbers of the original release; 2.x and XL's second encoder pad with 0."""
    tokens = tokenize(clip_tokenizer(), ["a photo of a cat"])[0].tolist()
    assert tokens[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert set(tokens[7:]) == {49407}
    padded = tokenize(clip_tokenizer("!"), ["a photo of a cat"])[0].tolist()
    assert padded[:7] == tokens[:7]
    assert set(padded[7:]) == {0}
    assert len(tokens) == len(padded) == 77
