"""A model with NaN or infinity is refused by the name of the tensor, before anything is drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_core.models.load import ModelError, load_model
from unlearn_core.models.single_file import _read, _vae, read_checkpoint

from ..saving.test_single_file import FIRST, write


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_a_component_of_a_folder(
    sd_folder: Path, tmp_path: Path, component: str, value: float, kind: str
) -> None:
    folder = Path(shutil.copytree(sd_folder, tmp_path / "model"))
    (file,) = (folder / component).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = value
    save_file(weights, file, metadata={"format": "pt"})
    message = f"^model: model/{component} holds {kind} in tensor '.*{name.split('.')[-2]}"
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_a_component_of_a_single_file(tmp_path: Path) -> None:
    """Under the name that it has in the file."""
    file = write(tmp_path / "model.safetensors")
    weights = load_file(file)
    weights[FIRST].view(-1)[0] = float("nan")
    save_file(weights, file)
    read_checkpoint(file)
    with pytest.raises(ModelError, match=f"^model: 'model.safetensors' holds NaN in .*'{FIRST}'"):
        _read(file, [FIRST], torch.float32)


def test_a_vae_of_a_separate_file(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    weights = {"decoder.conv_in.weight": torch.tensor([float("-inf")])}
    save_file(weights, file)
    with pytest.raises(ModelError, match="^vae: 'other.safetensors' holds infinity in tensor"):
        _vae(file, read_checkpoint(write(tmp_path / "model.safetensors"))[1], is_checkpoint=False)
