"""The trained classifier of the demo models."""

from __future__ import annotations

import random

import pytest
import torch

from demo.artwork import draw
from demo.jobs import EMOJI, FLOW
from demo.world import Subject, random_subject
from unlearn_core.judging.judge import ConvJudge


@pytest.mark.parametrize("size", [64, 128, 96])
def test_larger_pictures_are_judged_at_the_size_of_its_training(size: int) -> None:
    rng = random.Random(7)
    subjects: list[Subject] = [random_subject(rng) for _ in range(40)]
    images = torch.stack([torch.from_numpy(draw(s, rng, size)).movedim(-1, 0) for s in subjects])
    values = ConvJudge.load(EMOJI / "evaluation").classify(images / 255)
    for name, of_dimension in values.items():
        right = sum(v == getattr(s, name) for v, s in zip(of_dimension, subjects, strict=True))
        assert right >= 38, name


def test_both_canvases_have_the_same_judge() -> None:
    one, other = (ConvJudge.load(folder / "evaluation") for folder in (EMOJI, FLOW))
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
