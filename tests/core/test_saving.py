"""Saving: all or nothing, and nothing but what changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlearn_core.batches import TrainingSets
from unlearn_core.checkpoints import save_diffusers_folder
from unlearn_core.checkpoints.atomic import appearing
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.settings import UnlearnSettings
from unlearn_core.unlearn import UnlearnedModel, Unlearning


@pytest.fixture(scope="module")
def unlearned(sd_model: ModelHandle, sets: TrainingSets) -> UnlearnedModel:
    run = Unlearning(
        sd_model, sets, UnlearnSettings(steps=2, batch_size=2, scope="xattn", learning_rate=0.01)
    )
    assert len(list(run)) == 2
    return run.result()


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_saved_model_loads_as_the_same_model(unlearned: UnlearnedModel, tmp_path: Path) -> None:
    again = load_model(save_diffusers_folder(unlearned, tmp_path / "new"))
    expected = dict(unlearned.model.named_parameters())
    for name, parameter in again.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-3)


def test_nobody_lists_a_model_that_is_still_being_written(tmp_path: Path) -> None:
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
    own, kept = files(saved), files(sd_folder)
    assert own.keys() - kept.keys() == {"unlearn_report.json"}
    assert all(own[name] == kept[name] for name in kept if name != file)


def test_existing_model_stays_unless_told(unlearned: UnlearnedModel, tmp_path: Path) -> None:
    saved = save_diffusers_folder(unlearned, tmp_path / "new")
    before = files(saved)
    with pytest.raises(FileExistsError, match="choose another name or switch overwrite on"):
        save_diffusers_folder(unlearned, saved)
    assert files(saved) == before
    (saved / "mine.txt").write_text("old")
    save_diffusers_folder(unlearned, saved, overwrite=True)
    assert files(saved) == before


def test_a_folder_that_is_no_model_is_never_overwritten(
    unlearned: UnlearnedModel, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is no model"):
        save_diffusers_folder(unlearned, tmp_path / "precious", overwrite=True)
    assert files(tmp_path / "precious") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk_leaves_nothing_behind_and_keeps_the_old_model(
    unlearned: UnlearnedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    destination = tmp_path / "new"
    if overwrite:
        save_diffusers_folder(unlearned, destination)
    before = files(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("unlearn_core.checkpoints.diffusers_folder.copy_replacing", full)
    with pytest.raises(OSError, match="'new' could not be saved .*No space left on device"):
        save_diffusers_folder(unlearned, destination, overwrite=overwrite)
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["new"] if overwrite else [])
