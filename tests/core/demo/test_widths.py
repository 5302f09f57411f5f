"""EmojiCanvas of other widths: the same parts but for the U-Net, and a short training."""

from __future__ import annotations

from filecmp import dircmp
from pathlib import Path

import pytest
import torch

from demo import widths
from demo.jobs import EMOJI
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import typical_size


@pytest.fixture(autouse=True)
def build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(widths, "BUILD", tmp_path)
    return tmp_path


@pytest.mark.parametrize("width", widths.CHANNELS)
def test_the_model_opens_and_only_its_unet_has_another_width(width: str) -> None:
    widths.save(widths.new_unet(width), width)
    model, original = load_model(widths.folder(width)), load_model(EMOJI)
    scope = model.default_scope
    assert scope == original.default_scope
    larger = typical_size(model, scope) > typical_size(original, scope)
    assert larger == (width == "narrow"), "weights of wide layers are small"
    for part in ("text_encoder", "vae"):
        files = [folder / part for folder in (widths.folder(width), EMOJI)]
        assert not dircmp(*map(str, files)).diff_files
    ConvJudge.load(widths.folder(width) / "evaluation")


def test_an_interrupted_training_continues(
    build_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PICTURES": 6, "BATCH_SIZE": 4, "SAVE_EVERY": 1}.items():
        monkeypatch.setattr(widths, name, value)
    monkeypatch.setitem(widths.STEPS, "narrow", 3)
    device = torch.device("cpu")
    finished = widths.train("narrow", device).state_dict()
    state = torch.load(build_folder / "widths-narrow-state.pt", weights_only=True)
    assert state["step"] == 3
    again = widths.train("narrow", device).state_dict()
    assert all(torch.equal(again[name], value) for name, value in finished.items())
    untrained = widths.new_unet("narrow").state_dict()
    assert not torch.equal(finished["conv_in.weight"], untrained["conv_in.weight"])
