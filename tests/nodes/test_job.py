"""Whole jobs of the nodes on a tiny model of the real architecture."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch

from .conftest import QUICK, FakeServer
from .pack import node_result, pack_module, run_node, shown_by

UNLEARN = "UnlearnRestrictedGradient"
DRAWING = {"generation_steps": 2}
Interrupted = comfy.model_management.InterruptProcessingException


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def is_image(tensor: torch.Tensor) -> bool:
    in_range = 0 <= tensor.min() <= tensor.max() <= 1
    return tensor.ndim == 4 and tensor.shape[0] == 1 and tensor.shape[3] == 3 and bool(in_range)


def test_from_loading_to_the_saved_model(diffusers: Path, page: FakeServer, pairs: Any) -> None:
    model, info = node_result("UnlearnLoadModel", model="tiny-sd")
    assert "tiny-sd" in info
    before = weights(model)

    output = run_node(UNLEARN, model=model, prompts=pairs, **{**QUICK, "preview_every": 2})
    assert output.result is not None
    unlearned, chart, comparison, *_ = output.result
    assert is_image(chart)
    assert is_image(comparison)
    assert len(shown_by(output)["unlearn_run"][0]["previews"]) == 2  # of steps 2 and 3
    assert unlearned.model.changed_tensors()

    # The input model is unchanged, and could still be trained.
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(p.is_inference() for _, p in model.named_parameters())
    assert not any(p.requires_grad for _, p in model.named_parameters())

    steps = page.steps
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(step["node"] == "7" and step["total"] == 3 for step in steps)

    output = run_node("UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, **DRAWING)
    assert output.result is not None
    report, grid, figures = output.result
    assert is_image(grid)
    assert "pictures of each kind" in figures
    assert shown_by(output)["text"] == [figures]

    (path,) = node_result("UnlearnSaveCheckpoint", unlearned=unlearned, report=report, name="mine")
    assert path == str(diffusers / "mine")
    saved = pack_module("unlearn_core.models.load").load_model(path)
    after = weights(unlearned.model)
    assert all(torch.allclose(p, after[name]) for name, p in saved.named_parameters())
    assert "mine" in pack_module("nodes.host.folders").model_names()


def test_the_same_seed_gives_the_same_model(loaded: Any, pairs: Any) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        pack_module("nodes.page.runs").RUNS.clear()  # else the second would output the first
        return weights(
            node_result(UNLEARN, model=loaded, prompts=pairs, seed=seed, **QUICK)[0].model
        )

    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_class_is_forgotten_as_well(page: FakeServer) -> None:
    model, _ = node_result("UnlearnLoadModel", model="tiny-class")
    (concept,) = node_result(
        "UnlearnForgetConcept", concept="cat", kind="class", replacements="dog, house"
    )
    (pairs, _) = node_result(
        "UnlearnDiversifyPrompts",
        concept=concept,
        templates="{wording} {concept}",
        dimensions="wording: a, one",
        train_count=4,
        test_count=2,
    )
    unlearned = node_result(UNLEARN, model=model, prompts=pairs, scope="full", **QUICK)[0]
    assert len(page.steps) == QUICK["steps"]
    report = node_result("UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, **DRAWING)[0]
    assert report.before.pictures == 2


def test_cancel_between_two_steps(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(loaded)
    send = page.send_sync

    def press_cancel(event: str, data: dict[str, Any], sid: str | None = None) -> None:
        send(event, data, sid)
        if event == "unlearn.step" and data["step"] == 2:
            comfy.model_management.interrupt_current_processing(True)

    monkeypatch.setattr(page, "send_sync", press_cancel)
    with pytest.raises(Interrupted):
        run_node(UNLEARN, model=loaded, prompts=pairs, **{**QUICK, "steps": 50})
    assert len(page.steps) == 2
    assert all(torch.equal(p, before[name]) for name, p in loaded.named_parameters())


def test_cancel_between_two_pictures_keeps_the_pictures(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = pack_module("nodes.host.progress").NodeProgress
    show = progress.show

    def press_cancel(self: Any) -> None:
        if self.name == "making images" and self.done:
            comfy.model_management.interrupt_current_processing(True)
        show(self)

    monkeypatch.setattr(progress, "show", press_cancel)
    with pytest.raises(Interrupted):
        run_node(UNLEARN, model=loaded, prompts=pairs, **QUICK)
    assert page.steps == []
    files = list((tmp_path / "user" / "unlearn_cache").iterdir())
    assert len(files) == QUICK["batch_size"], "the first batch was drawn and is cached"


def test_cancel_while_evaluating(unlearned: Any) -> None:
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(Interrupted):
        run_node("UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, **DRAWING)


@pytest.mark.parametrize("method", ["restricted gradient", "UCE (closed form)"])
def test_the_bar_fills_once_from_end_to_end(
    loaded: Any, pairs: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[tuple[int, int]] = []

    class Bar:
        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, value: int, total: int) -> None:
            updates.append((value, total))

    monkeypatch.setattr("comfy.utils.ProgressBar", Bar)
    widgets = {**QUICK, "preview_every": 2, "method": method}
    run_node(UNLEARN, model=loaded, prompts=pairs, **widgets)
    values = [value for value, _ in updates]
    assert values == sorted(values)
    assert values[-1] == updates[-1][1]


def test_values_that_are_not_numbers_become_null(page: FakeServer) -> None:
    report = pack_module("unlearn_core.unlearning.results").StepReport(
        1, 0.5, 0.5, 0.0, False, 1.0, 1.0, -0.1, -0.1, 0.1
    )
    broken = replace(report, forget_loss=math.nan, retain_loss=math.inf)
    live = pack_module("nodes.page.runs")
    live.LiveRun("7", None, "same", 10, ["a cat"], 1, "page").step(broken)
    (data,) = page.steps
    assert (data["forget_loss"], data["retain_loss"], data["cosine"]) == (None, None, 0.0)
    json.dumps(data, allow_nan=False)


def test_the_text_lists_the_prompts(pairs: Any) -> None:
    text = pack_module("nodes.diversify_prompts").readable(pairs)
    for pair in (*pairs.train, *pairs.test):
        assert f"{pair.forget}\n  → {pair.retain}" in text
