"""Save Checkpoint with the result of a MODEL of ComfyUI, read again by ComfyUI's own nodes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from comfy_api.latest import io
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..conftest import QUICK
from ..pack import NODES, comfyui_nodes, node_result, pack_module, run_node, shown_by
from .conftest import train, trained
from .narrow_checkpoint import narrow_sd15
from .same_weights import as_comfyui, write_folder
from .test_gradients import batch, trainable
from .test_training import SAME, bits, equal, predicted
from .tiny_networks import ARCHITECTURES, StandInClip, model

SAVE, UNLEARN, FROM = "UnlearnSaveCheckpoint", "UnlearnRestrictedGradient", "UnlearnFromComfyUI"
LORA_NAMES = ("ComfyUI", "kohya", "diffusers")
HALF = 2e-3  # relative difference of a change stored in fp16


@pytest.fixture(scope="module")
def flux(pairs: Any) -> tuple[Any, Any]:
    """A MODEL and the result of its training; no test changes them."""
    given = model("flux")
    return given, trained("flux", pairs, given)[1]


def save(unlearned: Any, **widgets: Any) -> Path:
    inputs = {"name": "mine", "save_as": "LoRA", **widgets}
    return Path(node_result(SAVE, unlearned=unlearned, **inputs)[0])


def with_lora(given: Any, file: Path) -> Any:
    """The MODEL after ComfyUI's own LoraLoaderModelOnly."""
    loader = getattr(comfyui_nodes, "LoraLoaderModelOnly")()  # noqa: B009 - as in `pack`
    with torch.inference_mode():
        return loader.load_lora_model_only(given, file.name, 1.0)[0]


@torch.no_grad()
def after(unlearned: Any) -> Tensor:
    """What the trained handle predicts."""
    latents, conditioning, noise, t = batch(unlearned.model)
    return unlearned.model.predict(unlearned.model.add_noise(latents, noise, t), conditioning, t)


def files() -> list[Path]:
    """All files and folders in the folders of models, hidden ones too."""
    kinds = ("checkpoints", "loras", "diffusers")
    return [p for kind in kinds for p in Path(folder_paths.get_folder_paths(kind)[0]).iterdir()]


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened_file:
        return opened_file.metadata()


def hash_of_tensors(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


@pytest.mark.parametrize("name", ["flux", "sd3", "z-image", "qwen-image", "sd15", "sdxl"])
def test_lora_loader_gives_the_trained_model(name: str, pairs: Any) -> None:
    given = model(name)
    before = predicted(given, name)
    _, unlearned = trained(name, pairs, given, scope="lora")
    expected = after(unlearned)
    assert (expected - before).abs().max() > 1e-3, "it has learned something"
    for lora_names in LORA_NAMES:
        if lora_names == "diffusers" and name in ("sd15", "sdxl"):
            with pytest.raises(ValueError, match="lora_names must be 'ComfyUI' or 'kohya' for"):
                save(unlearned, lora_names=lora_names, name="lacking")
            assert "lacking" not in {file.stem for file in files()}
            continue
        file = save(unlearned, lora_names=lora_names, name=f"in {lora_names}")
        patched = predicted(with_lora(given, file), name)
        assert (patched - expected).abs().max() < SAME * expected.abs().max(), lora_names
    assert torch.equal(predicted(given, name), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_the_precision_of_the_factors(dtype: torch.dtype, pairs: Any) -> None:
    given = model("flux", dtype)
    _, unlearned = trained("flux", pairs, given)
    file = save(unlearned)
    expected = torch.float32 if dtype == torch.float32 else torch.float16
    loaded = pack_module("nodes.native.lora_file").lora_state_dict(unlearned.model)
    with safe_open(file, "pt") as opened_file:
        assert set(opened_file.keys()) == set(loaded)
        for key, factor in loaded.items():
            stored = opened_file.get_tensor(key)
            assert stored.dtype == expected
            assert (stored.float() - factor).norm() <= HALF * factor.norm(), key


def test_the_metadata_and_the_place(flux: tuple[Any, Any]) -> None:
    _, unlearned = flux
    output = run_node(SAVE, unlearned=unlearned, name="mine")
    assert output.result is not None
    file = Path(output.result[0])
    assert file.parent == Path(folder_paths.get_folder_paths("loras")[0]), "as it was loaded"
    assert shown_by(output)["text"] == [f"Saved to {file}"]
    metadata = metadata_of(file)
    assert json.loads(metadata["unlearn.concept"])["name"] == "ink"
    assert metadata["unlearn.base_sha256"] == unlearned.base.info.fingerprint
    assert metadata["ss_network_dim"] == str(unlearned.settings.lora_rank)
    assert metadata["modelspec.architecture"] == "flux/lora"
    assert metadata["sshs_model_hash"] == hash_of_tensors(file)
    assert json.loads(metadata["workflow"])["id"]


def test_kohya_s_names_are_those_of_the_core(pairs: Any, tmp_path: Path) -> None:
    """The same Stable Diffusion 1.5, trained by the core's own handle and by ComfyUI's network."""
    folder = write_folder(tmp_path / "tiny-sd15")
    core = pack_module("unlearn_core.models.load").load_model(folder)
    given, clip, vae = as_comfyui(folder)
    native = node_result(FROM, model=given, clip=clip, vae=vae, image_size=16)[0]
    factors = []
    for handle in (core, native):
        inputs = {**QUICK, "scope": "lora", "learning_rate": 0.01}
        unlearned = node_result(UNLEARN, model=handle, prompts=pairs, **inputs)[0]
        file = save(unlearned, lora_names="kohya", name=type(handle).__name__)
        with safe_open(file, "pt") as opened_file:
            names = list(opened_file.keys())
            factors.append({name: opened_file.get_tensor(name) for name in names})
    one, other = factors
    assert one.keys() == other.keys()
    for key, factor in one.items():
        assert factor.shape == other[key].shape, key
    downs = [key for key in one if key.endswith("lora_down.weight")]
    assert downs
    for key in downs:
        assert (one[key] - other[key]).norm() < 0.1 * one[key].norm(), key


@pytest.mark.parametrize("lora_names", LORA_NAMES[:2])
def test_a_closed_form_edit_becomes_a_lora(lora_names: str, pairs: Any) -> None:
    given = model("sd15")
    before = predicted(given, "sd15")
    _, unlearned = trained("sd15", pairs, given, method="UCE (closed form)")
    output = run_node(
        SAVE, unlearned=unlearned, name="mine", save_as="LoRA", lora_rank=4, lora_names=lora_names
    )
    assert output.result is not None
    assert "rank 4, captures 100.0 % of the change" in shown_by(output)["text"][0]
    expected = after(unlearned)
    patched = predicted(with_lora(given, Path(output.result[0])), "sd15")
    assert (patched - expected).norm() < 0.02 * (expected - before).norm()
    for layer in unlearned.model.adapters.whole.values():  # a change of full rank
        layer.weight.data += torch.randn(layer.weight.shape) * layer.weight.std()
    rough = run_node(SAVE, unlearned=unlearned, name="rough", save_as="LoRA", lora_rank=1)
    assert re.search(r"rank 1, captures [1-9]?\d\.\d % of the change", shown_by(rough)["text"][0])


@pytest.fixture(scope="module")
def emoji_canvas(pairs: Any) -> tuple[Any, Any]:
    """The demo MODEL, CLIP and VAE, and the result of unlearning."""
    loaded = node_result("UnlearnDemoModel")
    given, clip, vae = loaded
    handle = node_result(FROM, model=given, clip=clip, vae=vae, image_size=64)[0]
    return loaded, train(handle, pairs, retain_batch_factor=1)


def predictions(given: Any, clip: Any, vae: Any) -> Tensor:
    """Of a MODEL on its own, for prompts of the concept."""
    handle = pack_module("nodes.native.opening").open_native(given, clip, vae, image_size=64)
    return of_handle(handle)


@torch.no_grad()
def of_handle(handle: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(4, 4, 16, 16, generator=generator)
    prompts = [f"a {thing} in ink style" for thing in ("cat", "dog", "house", "tree")]
    t = handle.times(torch.tensor([0.3, 0.5, 0.7, 0.9]))
    return handle.predict(latents, handle.encode_prompts(prompts), t)


@pytest.mark.parametrize("lora_names", LORA_NAMES[:2])
def test_the_demo_model(lora_names: str, emoji_canvas: tuple[Any, Any]) -> None:
    (given, clip, vae), unlearned = emoji_canvas
    before, expected = of_handle(unlearned.base), of_handle(unlearned.model)
    file = save(unlearned, lora_names=lora_names)
    patched = predictions(with_lora(given, file), clip, vae)
    assert (expected - before).norm() > 0.01 * before.norm()
    assert (patched - expected).norm() < 0.01 * (expected - before).norm()


def test_a_lora_has_nearly_the_same_effect_on_a_derivative(emoji_canvas: tuple[Any, Any]) -> None:
    (_, clip, vae), unlearned = emoji_canvas
    effect = of_handle(unlearned.model) - of_handle(unlearned.base)
    file = save(unlearned)
    derivative = node_result("UnlearnDemoModel")[0]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in derivative.model.diffusion_model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += (0.01 * weight.norm() / noise.norm()) * noise
    before = predictions(derivative, clip, vae)
    assert (before - of_handle(unlearned.base)).norm() > 1e-3 * before.norm()
    there = predictions(with_lora(derivative, file), clip, vae) - before
    assert torch.cosine_similarity(there.flatten(), effect.flatten(), dim=0) > 0.95
    assert 0.8 < there.norm() / effect.norm() < 1.25


def test_a_checkpoint_loads_again(pairs: Any) -> None:
    """A narrow Stable Diffusion 1.5 that ComfyUI's loader recognises, with a full-size CLIP and
    VAE."""
    given, clip, vae = narrow_sd15()
    handle = node_result(FROM, model=given, clip=clip, vae=vae, image_size=64)[0]
    unlearned = result(trainable(handle)[0], handle, pairs)
    before, expected = after(result(handle, handle, pairs)), after(unlearned)
    assert (expected - before).abs().max() > 1e-3
    weights = bits(given)
    file = save(unlearned, save_as="checkpoint")
    assert file.parent == Path(folder_paths.get_folder_paths("checkpoints")[0])
    assert equal(bits(given), weights), "the given MODEL is unchanged"
    metadata = metadata_of(file)
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    digest = hash_of_tensors(file)
    assert metadata["sshs_model_hash"] == digest
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert json.loads(metadata["workflow"])["id"]
    folder_paths.folder_names_and_paths["embeddings"] = ([], set())
    loader = getattr(comfyui_nodes, "CheckpointLoaderSimple")()  # noqa: B009 - as in `pack`
    with torch.inference_mode():
        saved = loader.load_checkpoint(file.name)[:3]
    again = node_result(FROM, model=saved[0], clip=saved[1], vae=saved[2], image_size=64)[0]
    assert (after(result(again, again, pairs)) - expected).norm() < 0.01 * (
        expected - before
    ).norm()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.decode_latents(latents), handle.decode_latents(latents))


def result(handle: Any, base: Any, pairs: Any) -> Any:
    """As if ``handle`` were trained from ``base``."""
    results = pack_module("unlearn_core.unlearning.results")
    settings = pack_module("unlearn_core.unlearning.settings").UnlearnSettings()
    return results.UnlearnedModel(handle, base, pairs, settings, ())


def test_a_name_that_exists(flux: tuple[Any, Any]) -> None:
    _, unlearned = flux
    file = save(unlearned)
    content = file.read_bytes()
    with pytest.raises(FileExistsError, match="'mine.safetensors' exists already"):
        save(unlearned)
    assert file.read_bytes() == content
    save(unlearned, overwrite=True, lora_names="kohya")
    assert file.read_bytes() != content
    assert files() == [file]


def test_a_lora_of_another_program_is_never_overwritten(flux: tuple[Any, Any]) -> None:
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.safetensors"
    save_file({"lora": torch.zeros(1)}, file, {"ss_output_name": "mine"})
    content = file.read_bytes()
    with pytest.raises(FileExistsError, match="'mine.safetensors' exists and was not saved by"):
        save(flux[1], overwrite=True)
    assert file.read_bytes() == content
    file.unlink()


def test_a_file_that_the_workflow_loads_is_never_overwritten(flux: tuple[Any, Any]) -> None:
    _, unlearned = flux
    file = save(unlearned)
    content = file.read_bytes()
    prompt = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "other.safetensors"}},
        "2": {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "lora_name": file.name}},
        "3": {"class_type": FROM, "inputs": {"model": ["2", 0]}},
        "7": {"class_type": SAVE, "inputs": {"unlearned": ["3", 0], "name": "mine"}},
        # A comparison in the same graph is no source of the model.
        "8": {"class_type": "LoraLoader", "inputs": {"lora_name": "compared.safetensors"}},
    }
    hidden = {io.Hidden.unique_id: "7", io.Hidden.prompt: prompt}
    clone = NODES[SAVE].PREPARE_CLASS_CLONE({**hidden, "hidden_inputs": hidden})
    inputs = {"unlearned": unlearned, "save_as": "LoRA", "overwrite": True, "lora_rank": 4}
    with torch.inference_mode(), pytest.raises(FileExistsError, match="this workflow loads"):
        clone.EXECUTE_NORMALIZED(**inputs, name="mine")
    assert file.read_bytes() == content
    save(unlearned, name="compared")
    with torch.inference_mode():
        clone.EXECUTE_NORMALIZED(**inputs, name="compared")


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"save_as": "diffusers folder"}, "save_as must be 'LoRA' or 'checkpoint' for 'Flux'"),
        ({"save_as": "checkpoint"}, "save_as must be 'LoRA' for 'Flux', got 'checkpoint'"),
        ({"lora_names": "peft"}, "lora_names must be one of ComfyUI, kohya, diffusers, got 'peft'"),
    ],
)
def test_what_is_not_possible_is_refused(
    widgets: dict[str, str], message: str, flux: tuple[Any, Any]
) -> None:
    _, unlearned = flux
    with pytest.raises(ValueError, match=message):
        save(unlearned, **widgets)
    assert files() == []


def test_the_demo_model_as_a_checkpoint_is_refused(emoji_canvas: tuple[Any, Any]) -> None:
    """ComfyUI recognises a model by its full-size shapes."""
    with pytest.raises(ValueError, match="Load Checkpoint would not recognise; choose 'LoRA'"):
        save(emoji_canvas[1], save_as="checkpoint")
    assert files() == []


def test_a_checkpoint_needs_the_vae(pairs: Any) -> None:
    handle = pack_module("nodes.native.opening").open_native(
        model("flux"), StandInClip(ARCHITECTURES["flux"]), image_size=64
    )
    unlearned = result(handle, handle, pairs)
    with pytest.raises(ValueError, match="vae must be linked to From ComfyUI"):
        save(unlearned, save_as="checkpoint")
    with pytest.raises(ValueError, match="no trained layers"):
        save(unlearned)
    assert files() == []


def test_cancel_leaves_nothing(flux: tuple[Any, Any]) -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(flux[1])
    assert files() == []


def test_a_full_disk_leaves_what_was_there(flux: tuple[Any, Any]) -> None:
    file = save(flux[1])
    content = file.read_bytes()
    with (
        files_of_at_most(1000),
        pytest.raises(OSError, match="could not be saved .*no file of this size"),
    ):
        save(flux[1], overwrite=True)
    assert files() == [file]
    assert file.read_bytes() == content


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The operating system refuses to write larger files."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
