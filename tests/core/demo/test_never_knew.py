"""EmojiCanvas without one concept: its training pictures, its files and its resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo import never_knew, widths
from demo.diffusion import Denoiser
from demo.jobs import EMOJI
from demo.pictures import Pool, label_of
from demo.world import BACKGROUNDS, Subject
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model


@pytest.fixture(autouse=True)
def build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (never_knew, widths):
        monkeypatch.setattr(module, "BUILD", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("concept", "remaining"), [("ink", [1, 2]), ("cat", [0, 2])])
def test_no_picture_of_the_concept_is_trained_on(concept: str, remaining: list[int]) -> None:
    subjects = [Subject("ink", "dog", BACKGROUNDS[0]), Subject("noto", "cat", BACKGROUNDS[0])]
    subjects.append(Subject("pixel", "dog", BACKGROUNDS[0]))
    labels = torch.tensor([label_of(subject) for subject in subjects])
    assert never_knew.without(Pool(torch.zeros(3), labels), concept).tolist() == remaining


def test_an_interrupted_training_continues(
    build_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PICTURES": 12, "BATCH_SIZE": 2, "SAVE_EVERY": 1, "STEPS": 3}.items():
        monkeypatch.setattr(never_knew, name, value)
    monkeypatch.setattr(widths, "PICTURES", 12)
    device = torch.device("cpu")
    finished = never_knew.train("ink", device).state_dict()
    state = torch.load(build_folder / "never-knew-ink-state.pt", weights_only=True)
    assert state["step"] == 3
    again = never_knew.train("ink", device).state_dict()
    assert all(torch.equal(again[name], value) for name, value in finished.items())


def test_the_model_opens_and_shares_the_autoencoder() -> None:
    torch.manual_seed(1)
    never_knew.save(Denoiser(), "ink")
    model, original = load_model(never_knew.folder("ink")), load_model(EMOJI)
    names = [name for name, _ in original.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    assert len(model.encode_prompts(["a cat in ink style"])) == 1
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.encode_images(image), original.encode_images(image))
    ConvJudge.load(never_knew.folder("ink") / "evaluation")
