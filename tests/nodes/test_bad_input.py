"""Bad input: one clear error that names field, value and cure, before any work starts."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from .pack import node_result, pack_module, refusals, run_node

SAVE = "UnlearnSaveCheckpoint"


@pytest.mark.parametrize("concept", ["", "   ", "\n"])
def test_empty_concept(concept: str) -> None:
    (answer,) = refusals("UnlearnForgetConcept", concept=concept)
    assert "concept must name what to forget" in answer
    assert repr(concept) in answer
    with pytest.raises(ValueError, match="type a word such as 'ink'"):
        run_node("UnlearnForgetConcept", concept=concept)


def test_concept_among_its_replacements() -> None:
    with pytest.raises(ValueError, match="replacements: 'ink' is or contains one of"):
        run_node("UnlearnForgetConcept", replacements="noto, ink")


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind must be one of .*got 'smell'"):
        run_node("UnlearnForgetConcept", kind="smell")


def test_words_are_read_without_gaps_and_doubles() -> None:
    (concept,) = node_result("UnlearnForgetConcept", synonyms=" inky,, wash ,inky,")
    assert concept.synonyms == ("inky", "wash")


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"templates": "a {object} on paper"}, "put {concept} where it belongs"),
        ({"templates": "a cat in ink style"}, "'a cat in ink style' does not contain the concept"),
        ({"dimensions": "object: cat, dog", "templates": " \n"}, "which is not a dimension"),
        ({"templates": "{concept} {smell}"}, "'smell', which is not a dimension"),
        ({"templates": "{concept} {"}, "unpaired brace"),
        ({"templates": "{concept} {object:>999999999}"}, "nothing may follow the name"),
        ({"templates": "{concept} {object.__class__}"}, "which is not a dimension"),
        ({"templates": "{concept}ish {object}"}, "put spaces around {concept}"),
        ({"dimensions": "cat, dog"}, "cannot read 'cat, dog'"),
        ({"dimensions": "object: cat\nbackground: white, pink"}, "needs 2 or more"),
    ],
)
def test_bad_prompts(widgets: dict[str, str], message: str) -> None:
    """Reported once, by the node, before any model is used."""
    assert refusals("UnlearnDiversifyPrompts", **widgets) == []
    (concept,) = node_result("UnlearnForgetConcept")
    costly = {"neighbours": 1, "candidates": "chalk", "model": object()}
    with pytest.raises(ValueError, match=re.escape(message)):
        run_node("UnlearnDiversifyPrompts", concept=concept, **costly, **widgets)


def test_an_invalid_file_name_is_refused_in_one_line() -> None:
    (answer,) = refusals("UnlearnDiversifyPrompts", save_as="../prompts")
    assert "save_as must not contain '/'" in answer


@pytest.mark.parametrize(
    ("widget", "value", "message"),
    [
        ("preset", "planet", "preset must be one of demo, style, object"),
        ("prompts_file", "../../secret.json", "prompts_file: .* not in ComfyUI's input folder"),
        ("prompts_file", "/etc/passwd", "prompts_file: .* not in ComfyUI's input folder"),
        ("prompts_file", "nothing.json", "prompts_file: .* not in ComfyUI's input folder"),
        ("language_model", "../tiny", "language_model: .* not in ComfyUI's models/LLM folder"),
    ],
)
def test_values_outside_the_list_are_refused(widget: str, value: str, message: str) -> None:
    """For V3 nodes, ComfyUI 0.3 does not check whether a value is in the list."""
    (concept,) = node_result("UnlearnForgetConcept")
    with pytest.raises(ValueError, match=message):
        run_node("UnlearnDiversifyPrompts", concept=concept, **{widget: value})


@pytest.mark.parametrize(
    ("node_id", "widget"),
    [
        ("UnlearnDiversifyPrompts", "train_count"),
        ("UnlearnDiversifyPrompts", "test_count"),
        ("UnlearnRestrictedGradient", "generation_steps"),
        ("UnlearnRestrictedGradient", "truncation"),
        ("UnlearnEvaluateAlignment", "pictures"),
        ("UnlearnEvaluateAlignment", "generation_steps"),
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_of_zero_and_less(node_id: str, widget: str, value: int) -> None:
    (answer,) = refusals(node_id, **{widget: value})
    assert widget in answer
    assert f"{value}" in answer
    assert "smaller than min" in answer


@pytest.mark.parametrize(
    "widget", ["steps", "batch_size", "learning_rate", "picture_pairs", "picture_steps"]
)
def test_numbers_below_automatic(widget: str) -> None:
    (answer,) = refusals("UnlearnRestrictedGradient", **{widget: -1})
    assert widget in answer
    assert "-1" in answer
    assert "smaller than min" in answer


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"method": "magic"}, "method must be one of .*'magic'"),
        ({"objective": "magic"}, "objective must be one of .*'magic'"),
        ({"scope": "magic"}, "scope must be one of .*'magic'"),
        ({"learning_rate": float("nan")}, "learning_rate must be 0 or more, got nan"),
        ({"retain_weight": float("inf")}, "retain_weight must be 0 or more, got inf"),
    ],
)
def test_bad_settings(loaded: Any, pairs: Any, widgets: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_node("UnlearnRestrictedGradient", model=loaded, prompts=pairs, **widgets)


def test_scope_without_parameters_in_the_model(pairs: Any, tmp_path: Path) -> None:
    (model, _) = node_result("UnlearnLoadModel", model="tiny-class")
    with pytest.raises(ValueError, match="scope 'xattn' does not exist in .*full"):
        run_node("UnlearnRestrictedGradient", model=model, prompts=pairs, scope="xattn")
    assert not (tmp_path / "user").exists(), "pictures were drawn before the refusal"


def test_prompts_that_the_model_cannot_express(pairs: Any) -> None:
    (model, _) = node_result("UnlearnLoadModel", model="tiny-class")
    with pytest.raises(ValueError, match="prompt must name exactly one class of 'tiny-class'"):
        run_node("UnlearnRestrictedGradient", model=model, prompts=pairs, scope="full")


# Models


def test_the_bundled_models_and_every_diffusers_folder_are_offered(diffusers: Path) -> None:
    shutil.copytree(diffusers.parent, diffusers / ".hidden", dirs_exist_ok=False, ignore=_all)
    (diffusers / ".hidden" / "model_index.json").write_text("{}")
    places = pack_module("nodes.host.folders")
    assert places.model_names() == [*places.BUNDLED, "tiny-class", "tiny-sd"]


def _all(_: str, names: list[str]) -> list[str]:
    return names


@pytest.mark.parametrize("name", ["../tiny-sd", "/etc", "C:\\models", "a/../../b", "\\\\host\\x"])
def test_model_outside(name: str) -> None:
    (answer,) = refusals("UnlearnLoadModel", model=name)
    assert "leads outside ComfyUI's models/checkpoints or models/diffusers" in answer
    assert repr(name) in answer
    with pytest.raises(ValueError, match="leads outside"):
        run_node("UnlearnLoadModel", model=name)


@pytest.mark.parametrize("name", ["", " ", "no-such-model"])
def test_missing_model(name: str) -> None:
    (answer,) = refusals("UnlearnLoadModel", model=name)
    assert f"{name!r} is not in ComfyUI's models/checkpoints or models/diffusers" in answer
    assert "choose another from the list" in answer


def test_pickle(diffusers: Path) -> None:
    (diffusers / "model.ckpt").write_bytes(b"\x80\x04.")
    (answer,) = refusals("UnlearnLoadModel", model="model.ckpt")
    assert "'model.ckpt' is a pickle, which is never loaded because it can run code" in answer


def test_empty_single_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "model.safetensors").write_bytes(b"")
    (answer,) = refusals("UnlearnLoadModel", model="model.safetensors")
    assert "'model.safetensors' is empty" in answer


def test_lora_used_as_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints" / "style.safetensors"
    save_file({"lora_unet_mid_block.lora_up.weight": torch.zeros(1)}, file)
    (answer,) = refusals("UnlearnLoadModel", model="style.safetensors")
    assert "'style.safetensors' is a LoRA file" in answer
    assert "choose Stable Diffusion" in answer


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"vae": "../x.safetensors"}, "vae: .* leads outside ComfyUI's models/vae"),
        ({"vae": "gone.safetensors"}, "vae: 'gone.safetensors' is not in ComfyUI's models/vae"),
        ({"image_size": 100}, "image_size must be a multiple of 64 .*got 100"),
        ({"prediction": "flow"}, "prediction must be one of 'auto', .*got 'flow'"),
        ({"precision": "fp8"}, "precision must be one of 'auto', .*got 'fp8'"),
    ],
)
def test_bad_options_of_a_model(widgets: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_node("UnlearnLoadModel", model="tiny-sd", **widgets)


def test_folder_without_a_model(diffusers: Path) -> None:
    (diffusers / "holiday").mkdir()
    (answer,) = refusals("UnlearnLoadModel", model="holiday")
    assert "has no model_index.json, so it is not a diffusion model" in answer


def test_model_of_another_kind(diffusers: Path) -> None:
    folder = diffusers / "speech"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "SpeechPipeline"}')
    with pytest.raises(ValueError, match="model: 'speech'"):
        run_node("UnlearnLoadModel", model="speech")


def test_truncated_safetensors(diffusers: Path, tiny_models: Path) -> None:
    shutil.copytree(tiny_models / "tiny-sd", diffusers / "broken")
    weights = diffusers / "broken" / "unet" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(ValueError, match="broken/unet, .* is truncated: .*again"):
        run_node("UnlearnLoadModel", model="broken")


def test_an_overwritten_model_is_loaded_again(diffusers: Path, tiny_models: Path) -> None:
    shutil.copytree(tiny_models / "tiny-class", diffusers / "mine")
    fingerprint = pack_module("nodes.load_model").LoadModel.fingerprint_inputs
    before = fingerprint("mine")
    assert fingerprint("mine") == before
    weights = next((diffusers / "mine" / "unet").glob("*.safetensors"))
    os.utime(weights, (0, 0))
    assert fingerprint("mine") != before


@pytest.mark.parametrize(
    "file",
    [
        "scheduler/scheduler_config.json",
        "model_index.json",
        "vae/config.json",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_model_with_edited_settings_is_loaded_again(
    diffusers: Path, tiny_models: Path, file: str
) -> None:
    """The same weights with another noise schedule are another model."""
    shutil.copytree(tiny_models / "tiny-sd", diffusers / "mine")
    fingerprint = pack_module("nodes.load_model").LoadModel.fingerprint_inputs
    before = fingerprint("mine")
    os.utime(diffusers / "mine" / file, (0, 0))
    assert fingerprint("mine") != before


def test_another_vae_gives_another_model(tiny_models: Path, tmp_path: Path) -> None:
    """Even under the same name."""
    fingerprint = pack_module("nodes.load_model").LoadModel.fingerprint_inputs
    file = tmp_path / "vae" / "mine.safetensors"
    weights = tiny_models / "tiny-sd" / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, file)
    own, other = fingerprint("tiny-sd"), fingerprint("tiny-sd", "mine.safetensors")
    assert own != other
    os.utime(file, (0, 0))
    assert fingerprint("tiny-sd", "mine.safetensors") != other


# Names


@pytest.mark.parametrize(
    "name",
    [
        *("", "  ", ".", "..", "../up", "a/b", "a\\b", "/abs", "C:", "C:\\x", "a:b", "what?"),
        *("a*", "a|b", '"q"', "<x>", "nul", "COM1", "com1.txt", "LPT9", "end.", "end ", " start"),
        *(".hidden", "~home", "line\nbreak", "zero\0byte", "bidi\u202eeman", "x" * 201, "é" * 101),
    ],
)
def test_harmful_name(name: str, diffusers: Path) -> None:
    answers = refusals(SAVE, name=name)
    assert answers
    assert all("name must " in answer and "'my-model-without-ink'" in answer for answer in answers)
    with pytest.raises(ValueError, match="name must"):
        run_node(SAVE, unlearned=None, name=name)  # refused before the model is used
    assert list(diffusers.iterdir()) == []


@pytest.mark.parametrize("name", ["my-model-without-ink", "Größe 2", "v1.5 without ink", "水墨"])
def test_valid_name(name: str, diffusers: Path) -> None:
    assert refusals(SAVE, name=name) == []
    paths = pack_module("nodes.host.folders").save_paths(name, "as it was loaded")
    assert paths["diffusers folder"] == diffusers / name


def test_existing_name(diffusers: Path, unlearned: Any) -> None:
    (path,) = node_result(SAVE, unlearned=unlearned, name="mine")
    assert path == str(diffusers / "mine")
    answers = refusals(SAVE, name="mine")
    assert all("'mine' exists already" in a and "switch overwrite on" in a for a in answers)
    assert answers
    with pytest.raises(FileExistsError, match="'mine' exists already, choose another name"):
        run_node(SAVE, unlearned=unlearned, name="mine")
    assert refusals(SAVE, name="mine", overwrite=True) == []
    run_node(SAVE, unlearned=unlearned, name="mine", overwrite=True)
    assert [folder.name for folder in diffusers.iterdir()] == ["mine"]


def test_overwriting_spares_what_this_pack_did_not_save(diffusers: Path, unlearned: Any) -> None:
    """A downloaded workflow may contain ``overwrite: true`` and any name."""
    (diffusers / "holiday").mkdir()
    (diffusers / "holiday" / "model_index.json").write_bytes(b"dear")
    folder = "diffusers folder"
    for answer in refusals(SAVE, name="holiday", save_as=folder, overwrite=True):
        assert "'holiday' in models/diffusers was not saved by Unlearn" in answer
    assert refusals(SAVE, name="holiday", save_as=folder, overwrite=True)
    with pytest.raises(FileExistsError, match="'holiday' exists and was not saved by Unlearn"):
        run_node(SAVE, unlearned=unlearned, name="holiday", overwrite=True)
    assert (diffusers / "holiday" / "model_index.json").read_bytes() == b"dear"


def test_disk_full(diffusers: Path, unlearned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run_node(SAVE, unlearned=unlearned, name="old")
    before = {file: file.read_bytes() for file in diffusers.rglob("*") if file.is_file()}
    monkeypatch.setattr(shutil, "copyfile", full)
    for name in ("new", "old"):
        with pytest.raises(OSError, match=f"'{name}' could not be saved .*No space left"):
            run_node(SAVE, unlearned=unlearned, name=name, overwrite=True)
    assert {f: f.read_bytes() for f in diffusers.rglob("*") if f.is_file()} == before
    assert [folder.name for folder in diffusers.iterdir()] == ["old"]
