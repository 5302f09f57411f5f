"""Files that are not models are refused with an explanation, and nothing is ever unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from unlearn_core.models.load import ModelError, load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.tensors import with_tensors
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

from ..tiny_models import write_class_conditional

CopyOf = Callable[[Path], Path]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def copy_of(tmp_path: Path) -> CopyOf:
    """A function that copies a folder, so that the test may damage it."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


def edit(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content.update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist, choose Stable Diffusion"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, suffix: str) -> None:
    file, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    file.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(
        ModelError,
        match=f"'model{suffix}' is a pickle, which is never loaded because it can run code",
    ):
        load_model(file)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists()  # the bomb works, so its absence above proves something


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.bin"])
def test_a_component_that_is_only_a_pickle(
    sd_folder: Path, copy_of: CopyOf, tmp_path: Path, component: str, name: str
) -> None:
    folder, trace = copy_of(sd_folder), tmp_path / "trace"
    for weights in (folder / component).glob("*.safetensors"):
        weights.unlink()
    (folder / component / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ModelError, match=component):
        load_model(folder)
    assert not trace.exists()


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_truncated_weights(sd_folder: Path, copy_of: CopyOf, component: str, length: int) -> None:
    folder = copy_of(sd_folder)
    (weights,) = (folder / component).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:length])
    message = {0: "is empty", 7: "is truncated or damaged: it has only 7 bytes"}.get(
        length, "is truncated: it has [0-9,]+ (of [0-9,]+ )?bytes"
    )
    with pytest.raises(ModelError, match=f"in .*/{component}, '{weights.name}' {message}"):
        load_model(folder)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"has no model_index.json, so it is not a diffusion model"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{'unet': 1}", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'"unet"', "is not a JSON object"),
    ],
)
def test_a_bad_index(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model_index.json").write_bytes(content)
    with pytest.raises(ModelError, match=f"model_index.json {message}"):
        load_model(tmp_path)


def test_an_index_of_something_else(class_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(class_folder)
    index = {"_class_name": "DanceDiffusionPipeline", "unet": [], "scheduler": []}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match="is DanceDiffusionPipeline; choose a diffusers folder"):
        load_model(folder)


def test_an_inpainting_model(sd_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(sd_folder)
    edit(folder / "unet" / "config.json", in_channels=9)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"inpainting or edit model \(9 input channels\)"):
        load_model(folder)


def test_a_missing_second_text_encoder(sd_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(sd_folder)
    edit(
        folder / "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
    )
    with pytest.raises(ModelError, match="text_encoder_2 cannot be loaded"):
        load_model(folder)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component(sd_folder: Path, copy_of: CopyOf, component: str) -> None:
    folder = copy_of(sd_folder)
    shutil.rmtree(folder / component)
    with pytest.raises(ModelError, match=component):
        load_model(folder)


@pytest.mark.parametrize("component", ["unet", "vae"])
def test_weights_with_a_missing_tensor(sd_folder: Path, copy_of: CopyOf, component: str) -> None:
    """diffusers alone would use random numbers and only log a warning."""
    folder = copy_of(sd_folder)
    (file,) = (folder / component).glob("*.safetensors")
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=component):
        load_model(folder)


@pytest.mark.parametrize(
    "file", ["unet/config.json", "vae/config.json", "text_encoder/config.json"]
)
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_config(sd_folder: Path, copy_of: CopyOf, file: str, content: str) -> None:
    folder = copy_of(sd_folder)
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=file.split("/")[0]):
        load_model(folder)


@pytest.mark.parametrize("changes", [{"prediction_type": "flow"}, {"beta_schedule": "unheard of"}])
def test_an_unknown_schedule(sd_folder: Path, copy_of: CopyOf, changes: dict[str, str]) -> None:
    folder = copy_of(sd_folder)
    edit(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(ModelError, match="scheduler"):
        load_model(folder)


@pytest.mark.parametrize(
    "id2label",
    [None, 3, ["cat", "dog"], {"0": "cat", "2": "dog"}, {"zero": "cat"}, {"1": "cat", "2": "dog"}],
)
def test_labels_without_class_names(class_folder: Path, copy_of: CopyOf, id2label: object) -> None:
    folder = copy_of(class_folder)
    edit(folder / "model_index.json", id2label=id2label)
    with pytest.raises(ModelError, match="id2label of 'tiny-class' must name the labels"):
        load_model(folder)


def test_more_labels_than_the_model_has(class_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(class_folder)
    edit(folder / "model_index.json", id2label={str(i): f"n{i}" for i in range(4)})
    with pytest.raises(ModelError, match="no class label for each of id2label's names"):
        load_model(folder)


def test_a_model_without_a_picture_size(class_folder: Path, copy_of: CopyOf) -> None:
    """``UNet2DModel`` allows it."""
    folder = copy_of(class_folder)
    edit(folder / "unet" / "config.json", sample_size=None)
    with pytest.raises(ModelError, match="sample_size"):
        load_model(folder)


def test_a_folder_with_16_bit_files_only(sd_folder: Path, copy_of: CopyOf) -> None:
    """The hub offers them beside others, and people download only these."""
    folder = copy_of(sd_folder)
    for file in list(folder.glob("*/*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    model, original = load_model(folder), load_model(sd_folder)
    for (_, one), (_, other) in zip(
        model.named_parameters(), original.named_parameters(), strict=True
    ):
        assert torch.equal(one, other)


def assert_same(model: ModelHandle, original: ModelHandle) -> None:
    for (_, one), (_, other) in zip(
        model.named_parameters(), original.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    words = [m.encode_prompts(["a cat"]).text_inputs()["tokens"] for m in (model, original)]
    torch.testing.assert_close(*(torch.stack(list(rows)) for rows in words), rtol=0, atol=0)


def test_weights_of_8_bits(sd_folder: Path, copy_of: CopyOf) -> None:
    """A saved copy would contain none of the change."""
    folder = copy_of(sd_folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("attn2.to_k.weight"))
    save_file({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, file)
    with pytest.raises(ModelError, match="'tiny-sd/unet' contains F8_E4M3 numbers.*choose its"):
        load_model(folder)


def test_a_list_in_place_of_a_number(sd3_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(sd3_folder)
    edit(folder / "transformer" / "config.json", sample_size=[8, 8])
    with pytest.raises(ModelError, match=r"transformer/config.json has a setting of another type"):
        load_model(folder)


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
def test_weights_in_several_files(sd_folder: Path, tmp_path: Path, variant: str | None) -> None:
    """As diffusers and transformers write them, for the denoiser and for text encoders. Saved,
    diffusers still opens them."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(sd_folder, safety_checker=None)
    pipeline.save_pretrained(tmp_path / "shards", variant=variant, max_shard_size="30KB")
    for component in ("unet", "text_encoder"):
        names = [file.name for file in (tmp_path / "shards" / component).iterdir()]
        assert sum("-of-0" in name for name in names) > 1
        assert any("index" in name for name in names)
    model, original = load_model(tmp_path / "shards"), load_model(sd_folder)
    assert_same(model, original)

    name = "conv_in.weight"
    changed = with_tensors(model, {name: dict(model.named_parameters())[name] + 1})
    pairs = PromptPairs(ForgetConcept("cat", "object"), (), (), {})
    result = UnlearnedModel(changed, model, pairs, UnlearnSettings(), ())
    saved = save_diffusers_folder(result, tmp_path / "saved")
    again: Any = StableDiffusionPipeline.from_pretrained(
        saved, variant=variant, safety_checker=None, use_safetensors=True
    )
    expected = dict(changed.named_parameters())
    for name, value in again.unet.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_16_bit_files_beside_others(sd_folder: Path, copy_of: CopyOf) -> None:
    """Files without a variant win, in each component on its own; also for the dtype."""
    folder = copy_of(sd_folder)
    for component in ("unet", "text_encoder"):
        (file,) = (folder / component).glob("*.safetensors")
        half = {name: value.half() + 1 for name, value in load_file(file).items()}
        save_file(half, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    (file,) = (folder / "vae").glob("*.safetensors")
    file.rename(file.with_suffix(".fp16.safetensors"))
    original = load_model(sd_folder)
    assert_same(load_model(folder), original)
    mixed = load_model(folder, options=LoadOptions(precision="mixed"))
    assert {p.dtype for _, p in mixed.named_parameters()} == {torch.float32}


def test_a_variant_beside_a_pickle(sd_folder: Path, copy_of: CopyOf) -> None:
    folder = copy_of(sd_folder)
    for component in ("unet", "text_encoder"):
        (file,) = (folder / component).glob("*.safetensors")
        file.rename(file.with_suffix(".non_ema.safetensors"))
        file.with_suffix(".bin").write_bytes(b"\x80\x04.")
    assert_same(load_model(folder), load_model(sd_folder))


def test_the_fingerprint_depends_on_weights_and_schedule(sd_folder: Path, copy_of: CopyOf) -> None:
    """It identifies cached pictures, which depend on the schedule as well as on the weights."""
    folder = copy_of(sd_folder)
    before = load_model(folder).info.fingerprint
    assert before == load_model(sd_folder).info.fingerprint
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    other_schedule = load_model(folder).info.fingerprint
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"][0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    other_weights = load_model(folder).info.fingerprint
    assert other_weights != other_schedule
    assert other_schedule != before


def test_the_fingerprint_ignores_evaluators(sd_folder: Path, copy_of: CopyOf) -> None:
    """A judge may be added to a model without invalidating its cached pictures."""
    folder = copy_of(sd_folder)
    (folder / "evaluation").mkdir()
    save_file({"weight": torch.zeros(1)}, folder / "evaluation" / "judge.safetensors")
    assert load_model(folder).info.fingerprint == load_model(sd_folder).info.fingerprint


@pytest.mark.parametrize(
    ("channels", "predicted", "message"),
    [
        (3, 4, "predicts 4 channels from 3; it must predict 3, or 6 with a learned variance"),
        (4, 4, r"has 4 channels; choose a model in pixel space, with 1 channel \(grey\) or 3"),
    ],
)
def test_a_class_model_with_other_channels(
    tmp_path: Path, channels: int, predicted: int, message: str
) -> None:
    folder = write_class_conditional(tmp_path / "odd", channels, predicted=predicted)
    with pytest.raises(ModelError, match=f"^model: odd/unet {message}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("device", "capability", "large", "mixed"),
    [
        ("cpu", (9, 0), True, False),
        ("cuda", (7, 5), False, False),
        ("cuda", (7, 5), True, True),
        ("cuda", (8, 6), False, True),
    ],
)
def test_automatic_precision_follows_the_device(
    device: str,
    capability: tuple[int, int],
    large: bool,
    mixed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert LoadOptions().is_mixed(large, torch.device(device)) is mixed
    assert LoadOptions(precision="mixed").is_mixed(large, torch.device(device))
    assert not LoadOptions(precision="fp32").is_mixed(large, torch.device(device))
