"""No result with NaN or infinity is ever written, and the old file stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unlearn_core.foundation.safetensors_file import copy_replacing, write_converted
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving import lora as lora_module
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.saving.lora import save_lora
from unlearn_core.saving.run_state import write_unlearned
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

NAN = float("nan")


def result(model: ModelHandle, pairs: PromptPairs, value: float, lora: bool) -> UnlearnedModel:
    """A result whose first trained tensor ends with ``value``."""
    names = model.parameters_in("xattn")
    changed = model.lora_copy(names, 2, 2.0, seed=0) if lora else model.trainable_copy(names)
    trained = [p for _, p in changed.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.5)
        trained[0].view(-1)[-1] = value
    return UnlearnedModel(changed, model, pairs, UnlearnSettings(scope="xattn"), ())


SAVERS: dict[str, Callable[[UnlearnedModel, Path], object]] = {
    "folder": save_diffusers_folder,
    "lora": save_lora,
    "state": lambda unlearned, file: write_unlearned(unlearned, file, {}),
}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("saver", SAVERS)
def test_it_is_refused_by_every_saver(
    sd_model: ModelHandle, pairs: PromptPairs, tmp_path: Path, saver: str, lora: bool
) -> None:
    destination = tmp_path / "result.safetensors"
    SAVERS[saver](result(sd_model, pairs, 1.0, lora), destination)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    unlearned = result(sd_model, pairs, NAN, lora)
    other = destination if saver == "state" else tmp_path / "other.safetensors"
    with pytest.raises(ValueError, match=r"holds NaN.*(lower learning_rate)"):
        SAVERS[saver](unlearned, other)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_value_beyond_the_range_of_the_file(tmp_path: Path) -> None:
    """It is finite in memory, and would become infinite in the file."""
    file, good = tmp_path / "result.safetensors", {"weight": torch.tensor([1.0, 65504.0])}
    write_converted(file, good, torch.float16, lambda _: {})
    before = file.read_bytes()
    message = r"tensor 'weight' is outside the range of fp16, so it is not saved; .* fp32 or bf16"
    with pytest.raises(ValueError, match=message):
        write_converted(file, {"weight": torch.tensor([7e4])}, torch.float16, lambda _: {})
    with pytest.raises(ValueError, match=message):
        copy_replacing(file, file, lambda _: torch.tensor([1.0, 7e4]), lambda _: {})
    assert file.read_bytes() == before
    write_converted(file, {"weight": torch.tensor([7e4])}, torch.bfloat16, lambda _: {})


def test_a_lora_beyond_the_range_of_its_file(
    sd_model: ModelHandle, pairs: PromptPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_module, "_layout", lambda _: (torch.float16, {}))
    with pytest.raises(ValueError, match="is outside the range of fp16"):
        save_lora(result(sd_model, pairs, 1e5, True), tmp_path / "lora.safetensors")
    assert list(tmp_path.iterdir()) == []
