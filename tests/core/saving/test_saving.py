"""Saving: all or nothing, and changed tensors only."""

from __future__ import annotations

import errno
import json
import os
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.foundation.atomic import appearing, refuse_existing
from unlearn_core.foundation.own_files import MANIFEST
from unlearn_core.models import weights
from unlearn_core.models.layers import LORA
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.models.tensors import with_tensors
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving import diffusers_folder
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.saving.single_file import save_single_file
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings


@pytest.fixture(scope="module")
def unlearned(sd_model: ModelHandle, sets: TrainingSets) -> UnlearnedModel:
    run = Unlearning(
        sd_model, sets, UnlearnSettings(steps=2, batch_size=2, scope="xattn", learning_rate=0.01)
    )
    assert len(list(run)) == 2
    return run.result()


class Merges:
    """Counts the merges of LoRA layers, and the merged weights in memory at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.peak = 0
        self._alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self._merge = weights._merged
        monkeypatch.setattr(weights, "_merged", self._counted)

    def _counted(self, layer: Any) -> Tensor:
        merged = self._merge(layer)
        self.count += 1
        self._alive.add(merged)
        self.peak = max(self.peak, len(self._alive))
        return merged


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> Merges:
    return Merges(monkeypatch)


@pytest.fixture
def lora(sd_model: ModelHandle, unlearned: UnlearnedModel) -> UnlearnedModel:
    """The result of a LoRA run in which every layer has an effect."""
    model = sd_model.lora_copy(parameter_names(sd_model, LORA), 2, 2.0, seed=0)
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.fill_(0.1)
    return replace(unlearned, model=model)


def test_a_name_is_looked_up_without_merging(lora: UnlearnedModel, merges: Merges) -> None:
    changed = lora.model.changed_tensors()
    assert all(name in changed for name in list(changed))
    assert "no such name" not in changed
    assert len(changed) == len(lora.model.lora_layers()) > 0
    assert merges.count == 0


def test_a_folder_is_saved_with_one_merged_weight_in_memory(
    lora: UnlearnedModel, merges: Merges, tmp_path: Path
) -> None:
    """Each is merged twice, since the hash in the header comes before the content."""
    save_diffusers_folder(lora, tmp_path / "new")
    assert (merges.count, merges.peak) == (2 * len(lora.model.lora_layers()), 1)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in folder.rglob("*")
        if f.is_file() and f.name != MANIFEST
    }


def test_saved_model_loads_as_the_same_model(unlearned: UnlearnedModel, tmp_path: Path) -> None:
    loaded = load_model(save_diffusers_folder(unlearned, tmp_path / "new"))
    expected = dict(unlearned.model.named_parameters())
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-3)


def test_an_incomplete_model_is_not_listed_as_a_model(tmp_path: Path) -> None:
    with appearing(tmp_path / "new.safetensors") as part:
        part.write_bytes(b"half of it")
        assert list(tmp_path.rglob("*.safetensors")) == []
    assert (tmp_path / "new.safetensors").read_bytes() == b"half of it"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_changed_tensors_change(
    unlearned: UnlearnedModel, sd_folder: Path, tmp_path: Path
) -> None:
    saved = save_diffusers_folder(unlearned, tmp_path / "new")
    file = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(sd_folder / file), load_file(saved / file)
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing
    assert all(".attn2." in name for name in differing)
    new, original = files(saved), files(sd_folder)
    assert new.keys() - original.keys() == {"unlearn_report.json"}
    assert all(new[name] == original[name] for name in original if name != file)


def test_a_model_that_is_gone_cannot_be_copied(unlearned: UnlearnedModel, tmp_path: Path) -> None:
    """Its folder or file was moved after it had been loaded."""
    base = unlearned.base
    assert isinstance(base, StableDiffusionHandle)
    moved = replace(base, info=replace(base.info, source=tmp_path / "moved"))
    for save, name in ((save_diffusers_folder, "result"), (save_single_file, "result.safetensors")):
        with pytest.raises(FileNotFoundError, match="save_as: 'moved'.* back, or save a LoRA"):
            save(replace(unlearned, base=moved), tmp_path / name)
        assert not (tmp_path / name).exists()


def test_an_existing_model_is_replaced_on_request_only(
    unlearned: UnlearnedModel, tmp_path: Path
) -> None:
    saved = save_diffusers_folder(unlearned, tmp_path / "new")
    before = files(saved)
    with pytest.raises(FileExistsError, match="choose another name or allow overwriting"):
        save_diffusers_folder(unlearned, saved)
    assert files(saved) == before
    (saved / "mine.txt").write_text("mine")
    save_diffusers_folder(unlearned, saved, overwrite=True)
    assert files(saved) == {**before, "mine.txt": b"mine"}


@pytest.mark.parametrize("name", ["notes.txt", "model_index.json"])
def test_a_folder_that_this_pack_did_not_write_is_never_overwritten(
    unlearned: UnlearnedModel, tmp_path: Path, name: str
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / name).write_text("mine")
    with pytest.raises(FileExistsError, match="'precious' exists and was not saved by Unlearn"):
        save_diffusers_folder(unlearned, tmp_path / "precious", overwrite=True)
    assert files(tmp_path / "precious") == {name: b"mine"}


def test_a_folder_of_an_earlier_version_is_replaced(
    unlearned: UnlearnedModel, tmp_path: Path
) -> None:
    """It has a report, but no list of its files."""
    saved = save_diffusers_folder(unlearned, tmp_path / "new")
    before = files(saved)
    (saved / MANIFEST).unlink()
    (saved / "unet" / "config.json").write_text("older")
    (saved / "mine.txt").write_text("mine")
    save_diffusers_folder(unlearned, saved, overwrite=True)
    assert files(saved) == {**before, "mine.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_no_temporary_files_and_the_old_model(
    unlearned: UnlearnedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    destination = tmp_path / "new"
    if overwrite:
        save_diffusers_folder(unlearned, destination)
    before = files(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("unlearn_core.saving.diffusers_folder.copy_replacing", full)
    with pytest.raises(OSError, match="'new' could not be saved .*No space left on device"):
        save_diffusers_folder(unlearned, destination, overwrite=overwrite)
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["new"] if overwrite else [])


def test_the_original_model_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "mine.safetensors"
    source.write_bytes(b"days of work")
    with pytest.raises(FileExistsError, match="is the original model"):
        refuse_existing(source, source, overwrite=True)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    with pytest.raises(FileExistsError, match="is the original model"):
        refuse_existing(tmp_path / "link", folder, overwrite=True)


def test_the_old_folder_is_restored_if_the_new_one_cannot_be_moved_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "mine"
    old.mkdir()
    (old / "weights").write_bytes(b"old")
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if source.name.endswith(".part"):
            raise OSError(errno.EIO, "no")
        replace(source, target)

    def save() -> None:
        with appearing(old) as part:
            part.mkdir()
            (part / "weights").write_bytes(b"new")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="'mine' could not be saved"):
        save()
    assert files(tmp_path) == {"mine/weights": b"old"}


def test_the_only_copy_is_never_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if neither folder can be moved into place."""
    old = tmp_path / "mine"
    old.mkdir()
    (old / "weights").write_bytes(b"old")
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if target == old:
            raise OSError(errno.EIO, "no")
        replace(source, target)

    def save() -> None:
        with appearing(old) as part:
            part.mkdir()

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="the previous version is in '.*old'"):
        save()
    (copy,) = tmp_path.glob(".mine-*/old/weights")
    assert copy.read_bytes() == b"old"


def test_an_interrupt_between_two_moves_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "mine"
    old.mkdir()
    (old / "weights").write_bytes(b"old")
    replace, interrupted = os.replace, []

    def moves(source: Path, target: Path) -> None:
        replace(source, target)
        if not interrupted:
            interrupted.append(target)
            raise KeyboardInterrupt

    def save() -> None:
        with appearing(old) as part:
            part.mkdir()

    monkeypatch.setattr(os, "replace", moves)
    with pytest.raises(KeyboardInterrupt):
        save()
    assert interrupted
    assert files(tmp_path) == {"mine/weights": b"old"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_saved_files_are_readable_by_other_users(unlearned: UnlearnedModel, tmp_path: Path) -> None:
    saved = save_diffusers_folder(unlearned, tmp_path / "new")
    assert saved.stat().st_mode & 0o777 == 0o755
    for path in saved.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def resaved(source: Path, pairs: PromptPairs, destination: Path) -> Path:
    """The model in a folder, saved with one tensor changed."""
    model = load_model(source)
    name = next(name for name, _ in model.named_parameters())
    changed = with_tensors(model, {name: dict(model.named_parameters())[name] + 1})
    result = UnlearnedModel(changed, model, pairs, UnlearnSettings(), ())
    return save_diffusers_folder(result, destination)


def test_what_the_index_does_not_name_is_not_copied(
    pairs: PromptPairs, sd_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(sd_folder, source)
    for name in (
        "whole.safetensors",
        "whole.ckpt",
        "notes.txt",
        "unet old/diffusion_pytorch_model.safetensors",
        ".cache/file.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/code.py",
        "unet/.checkpoints/config.json",
        "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"whatever")
    for name in ("README.md", "LICENSE", "evaluation/classes.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"{}")
    saved = resaved(source, pairs, tmp_path / "new")
    added = files(saved).keys() - files(sd_folder).keys()
    assert added == {"unlearn_report.json", "README.md", "LICENSE", "evaluation/classes.json"}


def test_an_index_cannot_name_other_folders(
    pairs: PromptPairs, sd_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "models" / "source"
    shutil.copytree(sd_folder, source)
    (tmp_path / "models" / "private.json").write_text("{}")
    index = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    for name in ("..", "", ".", "../..", "unet/..", "/etc"):
        index[name] = ["diffusers", "UNet2DConditionModel"]
    (source / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    saved = resaved(source, pairs, tmp_path / "new")
    assert files(saved).keys() - files(sd_folder).keys() == {"unlearn_report.json"}


def with_safety_checker(source: Path) -> Path:
    """Add a safety checker that exists only as a pickle, as in many folders of the hub."""
    part = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
    config = CLIPConfig(
        text_config={**part, "num_attention_heads": 2},
        vision_config={**part, "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    config.save_pretrained(source / "safety_checker")
    torch.save(checker.state_dict(), source / "safety_checker" / "pytorch_model.bin")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(source / "feature_extractor")
    index = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (source / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return source


def test_a_component_that_is_only_a_pickle_is_copied_unread(
    pairs: PromptPairs, sd_folder: Path, tmp_path: Path
) -> None:
    """diffusers opens the saved folder, as it opens the original."""
    source = with_safety_checker(Path(shutil.copytree(sd_folder, tmp_path / "source")))
    saved = resaved(source, pairs, tmp_path / "new")
    pickle = "safety_checker/pytorch_model.bin"
    assert (saved / pickle).read_bytes() == (source / pickle).read_bytes()
    pipelines: list[Any] = [StableDiffusionPipeline.from_pretrained(f) for f in (source, saved)]
    old, new = pipelines
    assert type(new.safety_checker) is StableDiffusionSafetyChecker
    for name, value in new.safety_checker.state_dict().items():
        assert torch.equal(value, old.safety_checker.state_dict()[name])
    assert not torch.equal(new.unet.conv_in.weight, old.unet.conv_in.weight)


def test_a_pickle_whose_content_is_hostile_is_never_opened(
    pairs: PromptPairs, sd_folder: Path, tmp_path: Path
) -> None:
    source = with_safety_checker(Path(shutil.copytree(sd_folder, tmp_path / "source")))
    content = b"cos\nsystem\n(S'touch hacked'\ntR."
    (source / "safety_checker" / "pytorch_model.bin").write_bytes(content)
    saved = resaved(source, pairs, tmp_path / "new")
    assert (saved / "safety_checker" / "pytorch_model.bin").read_bytes() == content


def test_a_model_that_predicts_its_variance_is_trained_and_saved(
    class_variance_folder: Path, pairs: PromptPairs, tmp_path: Path
) -> None:
    base = load_model(class_variance_folder)
    sets = make_training_sets(base, pairs, GenerationSettings(steps=2, batch_size=4))
    settings = UnlearnSettings(
        steps=2, batch_size=2, scope="full", learning_rate=0.01, warm_start=False
    )
    run = Unlearning(base, sets, settings)
    assert len(list(run)) == 2
    model = run.result().model
    loaded = load_model(save_diffusers_folder(run.result(), tmp_path / "new"))
    x, t = torch.randn(2, *base.latent_shape), torch.tensor([10, 500])
    cats = base.encode_prompts(["a cat"] * 2)
    with torch.no_grad():
        before, after, saved = (m.predict(x, cats, t) for m in (base, model, loaded))
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(saved, after)


def test_a_single_file_of_mixed_dtypes_keeps_every_weight(
    unlearned: UnlearnedModel, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The U-Net keeps each weight's dtype; a component is fp32 if 16 bits would change it."""
    names = sorted(name for name, _ in unlearned.base.named_parameters())
    stored = {name: torch.float32 for name in names} | {names[0]: torch.float16}
    stored = {names[0]: stored.pop(names[0]), **stored}
    monkeypatch.setattr(diffusers_folder, "stored_dtypes", lambda _: stored)
    diffusers_folder._split(unlearned, sd_folder, tmp_path, None)
    unet = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert {name: tensor.dtype for name, tensor in unet.items()} == stored
    before = dict(unlearned.model.named_parameters())
    assert all(torch.equal(unet[name], before[name]) for name in names[1:])
    saved, own = load_model(tmp_path), unlearned.base
    assert isinstance(saved, StableDiffusionHandle)
    assert isinstance(own, StableDiffusionHandle)
    for part, other in (
        (saved.vae, own.vae),
        (saved.text.clips[0].encoder, own.text.clips[0].encoder),
    ):
        weights_of = dict(other.named_parameters())
        assert all(torch.equal(value, weights_of[name]) for name, value in part.named_parameters())


def test_a_component_of_16_bits_stays_small() -> None:
    layer = nn.Linear(4, 4)
    assert diffusers_folder._lossless(layer, torch.float16) == torch.float32
    layer.half()
    assert diffusers_folder._lossless(layer, torch.float16) == torch.float16
    layer.float()
    assert diffusers_folder._lossless(layer, torch.float16) == torch.float16, "held in fp32"


def test_a_denoiser_of_mixed_dtypes_is_not_rounded(sd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd_folder, tmp_path / "model"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(file).items()}
    first = min(tensors)
    save_file(tensors | {first: tensors[first].bfloat16()}, file)
    model = load_model(folder, options=LoadOptions(precision="mixed"))
    assert all(p.dtype == torch.float32 for _, p in model.named_parameters())
