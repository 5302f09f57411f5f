"""A damaged judge or CLIP is named before it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from unlearn_core.judging.clip_scorer import SCORER_WEIGHTS, check_scorer
from unlearn_core.judging.judge import JUDGE_WEIGHTS, ConvJudge

DEMO = Path(__file__).parents[3] / "demo" / "models" / "emoji-canvas" / "evaluation"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model's own evaluators."""
    return Path(shutil.copytree(DEMO, tmp_path / "evaluation"))


def spoil(file: Path) -> str:
    weights = load_file(file)
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    weights[name].view(-1)[-1] = float("nan")
    save_file(weights, file)
    return name


def test_a_scorer_that_is_not_finite(folder: Path) -> None:
    check_scorer(folder)
    name = spoil(folder / SCORER_WEIGHTS)
    with pytest.raises(ValueError, match=f"^scorer: .* holds NaN in tensor '{name}'"):
        check_scorer(folder)


def test_a_truncated_scorer(folder: Path) -> None:
    file = folder / SCORER_WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="^scorer: .* is truncated or damaged"):
        check_scorer(folder)


def test_a_judge_that_is_not_finite(folder: Path) -> None:
    name = spoil(folder / JUDGE_WEIGHTS)
    with pytest.raises(ValueError, match=f"^judge: .* holds NaN in tensor '{name}'"):
        ConvJudge.load(folder)
