"""The speed benchmark with a small model, and its count of bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import kernels, speed
from benchmarks.live_bytes import peak_bytes, size_of
from benchmarks.speed_models import MODELS, SMALL
from benchmarks.speed_steps import OURS, ways
from unlearn_core.unlearning.pieces import ON_CPU

CPU = torch.device("cpu")


def test_a_small_model_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    options = ["--small", "--rounds", "1", "--losses", "redirect", "--results", str(tmp_path)]
    speed.main([*options, "--models", "sd15", "--scopes", "full", "lora"])
    full, lora = json.loads((tmp_path / "cpu-sd15-small.json").read_text())["comparisons"]
    for row in (full, lora):
        assert row["seconds"].keys() == row["memory"].keys() == {"ours", *speed.OTHERS}
        assert row["ratios"].keys() == set(speed.OTHERS)
        assert all(ratio > 0 for ratio in row["ratios"].values())
        assert row["memory"]["paper"] > row["memory"]["ours"]
        one_set, some_pieces = 4 * row["trained"], 8 * 4 * ON_CPU
        assert row["memory"]["ours"] <= row["memory"]["GradDiff"] + one_set + some_pieces
    assert lora["trained"] < full["trained"]


def test_the_bare_step_has_the_passes_of_ours() -> None:
    """Two of the frozen model for ``redirect``, one for the retain pictures, and two trained."""
    build, _ = MODELS["sd15"]
    model = build(SMALL, CPU)
    compared = ways(model, "xattn", "redirect", 2, paper=False)
    passes = compared["bare"].passes  # type: ignore[attr-defined]
    assert sorted(one.trains for one in passes) == [False, False, False, True, True]
    assert {len(one.arguments[0]) for one in passes} == {2}
    trained = compared[OURS].run.model.denoiser  # type: ignore[attr-defined]
    assert all((one.network is trained) == one.trains for one in passes)


def test_the_forms_of_the_denoiser_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "RESULTS", tmp_path)
    monkeypatch.setattr(kernels, "MODELS", {"sd15": (MODELS["sd15"][0], SMALL)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(kernels, "ROUNDS", 1)
    kernels.main(["--models", "sd15", "--no-compile"])
    (record,) = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert record["ratios"][kernels.PLAIN] == 1
    assert record["ratios"][kernels.CHANNELS_LAST] > 0
    assert kernels.table().count("\n| sd15 | ") == 2


def test_the_page_has_the_recorded_forms() -> None:
    block = f"<!-- kernels -->\n\n{kernels.table()}\n\n<!-- end of kernels -->"
    page = Path(kernels.__file__).parents[1] / "docs" / "speed.md"
    assert block in page.read_text(encoding="utf-8"), "see python -m benchmarks.kernels --table"


def test_a_way_without_enough_memory_is_left_out(tmp_path: Path) -> None:
    options = ["--small", "--rounds", "1", "--losses", "ascent", "--results", str(tmp_path)]
    speed.main([*options, "--models", "sd15", "--scopes", "full", "xattn", "--memory", "0.01"])
    (xattn,) = json.loads((tmp_path / "cpu-sd15-small.json").read_text())["comparisons"]
    assert xattn["ratios"].keys() == {"bare", "GradDiff"}


def test_the_peak_counts_what_lives_at_one_time() -> None:
    before = torch.zeros(1000)

    def action() -> None:
        before.add_(1)  # in place: nothing new
        first = before * 2
        second = first.view(10, 100)[:5] + 1  # views are not counted, their sum is
        del first, second
        torch.zeros(100)

    assert peak_bytes(action, CPU) == 4000 + 2000


def test_the_peak_includes_the_backward_pass() -> None:
    weight = torch.zeros(100, 100, requires_grad=True)

    def action() -> Tensor:
        (gradient,) = torch.autograd.grad(weight.exp().sum(), weight)
        return gradient

    assert peak_bytes(action, CPU) >= 2 * 40_000
    assert size_of([weight, weight.view(-1)]) == 40_000
