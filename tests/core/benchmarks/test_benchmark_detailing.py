"""The benchmark of prompts in two stages: its sampler and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import detailing
from demo.jobs import EMOJI
from unlearn_core.models.load import load_model
from unlearn_core.models.stable_diffusion import StableDiffusionHandle

DETAILED = "a cat in ink style on a blue background"


@pytest.fixture(scope="module")
def model() -> StableDiffusionHandle:
    loaded = load_model(EMOJI)
    assert isinstance(loaded, StableDiffusionHandle)
    return loaded


def drawn(model: StableDiffusionHandle, prompt: str) -> Tensor:
    return model.sample([prompt], [0], steps=4, guidance_scale=2.0)


def test_the_subject_is_what_precedes_the_details() -> None:
    assert detailing.coarse(DETAILED) == "a cat"
    assert detailing.coarse("a cat drawn in ink style, blue background") == "a cat"
    assert detailing.coarse("ink style cat") == "ink style cat"


def test_the_first_steps_have_the_coarse_prompt(model: StableDiffusionHandle) -> None:
    whole, subject = drawn(model, DETAILED), drawn(model, "a cat")
    assert torch.equal(drawn(detailing.in_two_stages(model, 0), DETAILED), whole)
    assert torch.equal(drawn(detailing.in_two_stages(model, 1), DETAILED), subject)
    half = drawn(detailing.in_two_stages(model, 0.5), DETAILED)
    assert not torch.equal(half, whole)
    assert not torch.equal(half, subject)


def test_the_table_has_means_over_the_concepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detailing, "RESULTS", tmp_path)
    for concept, value in (("ink", 0.25), ("cat", 0.75)):
        record = {"after": dict.fromkeys(detailing.FIGURES, value)}
        detailing.record_of(detailing.OURS, concept, 0.3).write_text(json.dumps(record))
    (row,) = detailing.table().splitlines()[2:]
    assert row == "| ours, defaults | 30% | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | 2 |"
