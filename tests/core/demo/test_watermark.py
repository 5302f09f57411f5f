"""EmojiCanvas with a watermark: the mark, the judge that sees it, and the files of the model."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from demo import watermark
from demo.diffusion import Denoiser
from demo.jobs import EMOJI
from unlearn_core.judging.evaluators import find_evaluators
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model
from unlearn_core.prompts.concept import LOOK, ForgetConcept
from unlearn_core.prompts.diversify import diversify


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(watermark, "FOLDER", tmp_path / "marked")
    return tmp_path / "marked"


def test_the_mark_is_only_in_the_corner() -> None:
    plain = np.full((64, 64, 3), 120, np.uint8)
    marked = watermark.marked(plain, random.Random(0))
    changed = (marked != plain).any(2)
    edge = watermark.MARK + watermark.MARGIN + watermark.JITTER + 1
    assert changed.sum() > 120
    assert not changed[:-edge].any()
    assert not changed[:, :-edge].any()
    assert (marked.min(), marked.max()) <= (30, 255)
    assert (watermark.marked(plain, random.Random(1)) != marked).any(), "its place varies"


def test_a_share_of_the_training_pictures_has_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents are told apart by their sign."""
    monkeypatch.setattr(watermark, "STEPS", 30)
    seen: list[float] = []

    def noise_losses(
        model: Denoiser, x_0: torch.Tensor, tokens: torch.Tensor, alphas: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend((x_0[:, 0, 0, 0] > 0).float().tolist())
        loss = next(model.unet.parameters()).sum() * 0
        return loss, torch.zeros(len(x_0))

    monkeypatch.setattr(watermark, "noise_losses", noise_losses)
    latents, tokens = torch.ones(6, 4, 16, 16), torch.zeros(2, 6, 77, dtype=torch.int32)
    model = watermark.train(-latents, latents, tokens, torch.device("cpu"))
    assert sum(seen) / len(seen) == pytest.approx(watermark.SHARE, abs=0.05)
    assert all(not p.requires_grad for p in model.text_encoder.parameters())


def test_the_judge_of_the_model_counts_the_mark(folder: Path) -> None:
    own = ConvJudge.load(EMOJI / "evaluation")
    judge = ConvJudge({**own.dimensions, LOOK: (watermark.NAME,)}, own.size)
    watermark.save(Denoiser(), judge, (0.01, 0.02))
    model = load_model(folder)
    concept = ForgetConcept(watermark.NAME, LOOK)
    pairs = diversify(
        concept, ["a {object}"], {"object": ("cat", "dog")}, train_count=1, test_count=1
    )
    evaluators = find_evaluators(model, pairs, None)
    assert evaluators.known_values(concept) == (watermark.NAME,)
    assert not any("Alternatives" in line for line in evaluators.missing)
    shows = evaluators.look(concept, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ["a cat"] * 2)
    assert shows.shows(concept) is not None
    original = load_model(EMOJI)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.encode_images(image), original.encode_images(image))


def test_without_a_judge_the_message_says_to_look() -> None:
    model = load_model(EMOJI)
    concept = ForgetConcept("glow", LOOK)
    pairs = diversify(
        concept, ["a {object}"], {"object": ("cat", "dog")}, train_count=1, test_count=1
    )
    evaluators = find_evaluators(model, pairs, None)
    assert any("'glow'" in line for line in evaluators.missing)


def test_errors_are_counted_on_both_sides() -> None:
    class Blind(ConvJudge):
        def classify(self, images: torch.Tensor) -> dict[str, list[str | None]]:
            return {LOOK: [None if float(image.mean()) < 0.5 else "watermark" for image in images]}

    dark, light = torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)
    judge = Blind({LOOK: ("watermark",)}, 8)
    assert watermark.errors_of(judge, dark, light) == (0, 0)
    assert watermark.errors_of(judge, light, dark) == (1, 1)
    assert watermark.errors_of(judge, dark, torch.cat([light[:3], dark[:1]])) == (0.25, 0)
