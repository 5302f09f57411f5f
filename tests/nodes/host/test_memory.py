"""Our models under ComfyUI's own memory management."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from ...core.tiny_models import write_language_model
from ..conftest import QUICK
from ..pack import ROOT, node_result, pack_module

DEVICE = "pretended:0"


@pytest.fixture(scope="module", params=["cpu", "pretended:1"])
def offload(request: pytest.FixtureRequest) -> str:
    """The device of unloaded weights: the CPU, whose tensors have another type than the pretended
    device's, or a device of the same type, as with CUDA."""
    return request.param


@pytest.fixture(scope="module")
def facts(offload: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of ``pretended_comfyui``."""
    folder = tmp_path_factory.mktemp("device")
    command = [sys.executable, "-m", "tests.nodes.pretended_comfyui", str(folder), offload]
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_models_are_loaded_and_trained_on_the_gpu(facts: dict[str, Any]) -> None:
    assert facts["loaded"] == facts["trained"] == [DEVICE]


def test_unloading_removes_all_our_weights_from_the_gpu(
    facts: dict[str, Any], offload: str
) -> None:
    assert facts["unloaded"] == [offload]
    assert facts["listed after unloading"] == 0


def test_a_run_after_unloading_has_the_same_result(facts: dict[str, Any]) -> None:
    first, second = facts["results"]
    assert first == second


def test_results_of_every_scope_survive_unloading(facts: dict[str, Any]) -> None:
    before, after = facts["pictures"]
    assert before == after
    assert len(set(before)) == 3  # of the base, of a trained copy, of a LoRA
    first, second = facts["reports"]
    assert first == second


def test_models_that_share_weights_are_loaded_separately(
    facts: dict[str, Any], offload: str
) -> None:
    assert facts["base alone"] == [[DEVICE], [offload]]
    assert facts["beside a run"] == [offload]


def test_only_long_work_unloads_other_models(facts: dict[str, Any]) -> None:
    """They are unloaded for a run, but not for saving."""
    assert facts["another's model"] == [True, False, True]


def test_unused_models_are_freed_without_garbage_collection(facts: dict[str, Any]) -> None:
    assert facts["dropped result"] == facts["dropped model"] == [True, True]
    listed = facts["listed"]
    assert facts["listed without it"] == listed - 1
    assert facts["listed without any"] == 0


def test_no_evaluator_outlives_its_evaluation(facts: dict[str, Any]) -> None:
    assert facts["judges afterwards"] == []


def test_no_language_model_outlives_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_language_model(tmp_path / "models" / "LLM" / "tiny")
    propose = pack_module("unlearn_core.prompts.language_model")
    models: list[weakref.ref[Any]] = []

    class Watched(propose.Proposer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            models.append(weakref.ref(self.model))

    monkeypatch.setattr(pack_module("nodes.diversify_prompts"), "Proposer", Watched)
    concept = node_result("UnlearnForgetConcept")[0]
    gc.disable()
    try:
        node_result(
            "UnlearnDiversifyPrompts",
            concept=concept,
            templates="a {thing} in {concept} style",
            dimensions="thing: boat, owl, shed, road",
            language_model="tiny",
            proposals=1,
            train_count=2,
            test_count=1,
        )
        assert [model() for model in models] == [None]
    finally:
        gc.enable()


def test_a_model_that_does_not_fit_is_unloaded_completely(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pack_module("nodes.host.memory")
    moves: list[torch.device] = []

    def move(_: object, device: torch.device) -> None:
        moves.append(device)
        if len(moves) == 1:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(memory, "move", move)
    weights = memory.UnlearnWeights(loaded.own_tensors())
    cpu, away = torch.device("cpu"), torch.device("meta")
    patcher = memory.WholeModelPatcher(weights, cpu, away, weights.size)
    with pytest.raises(torch.OutOfMemoryError):
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    assert moves == [cpu, away]
    assert patcher.loaded_size() == 0


@pytest.mark.parametrize(
    ("weights_on", "load_device", "loaded"),
    [
        ("mps:0", "mps", True),
        ("mps", "mps:0", True),
        ("cuda:0", "cuda", True),
        ("cuda:1", "cuda:0", False),
        ("cpu", "cuda:0", False),
    ],
)
def test_a_device_is_the_same_with_and_without_an_index(
    weights_on: str, load_device: str, loaded: bool
) -> None:
    memory = pack_module("nodes.host.memory")
    weights = memory.UnlearnWeights([torch.zeros(3)])
    weights.device = torch.device(weights_on)
    device, cpu = torch.device(load_device), torch.device("cpu")
    patcher = memory.WholeModelPatcher(weights, device, cpu, weights.size)
    assert patcher.loaded_size() == (weights.size if loaded else 0)


def test_outputs_report_their_memory(loaded: Any, pairs: Any) -> None:
    """ComfyUI's cache of outputs uses this when memory is short."""
    unlearned = node_result("UnlearnRestrictedGradient", model=loaded, prompts=pairs, **QUICK)[0]
    own = sum(p.nbytes for name, p in unlearned.model.named_parameters() if ".attn2." in name)
    assert unlearned.get_ram_usage() == unlearned.patcher.model_size() == own > 0
    assert all(isinstance(output.patcher, ModelPatcher) for output in (loaded, unlearned))
    assert loaded.get_ram_usage() == loaded.patcher.model_size() > 10 * own
    report, *_ = node_result(
        "UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, generation_steps=2
    )
    assert report.get_ram_usage() == 2 * 3 * 2 * 3 * 16 * 16  # sides, groups, pictures, pixels
    images = torch.zeros(2, 8, 8, 3)
    pictures, _ = node_result("UnlearnOwnPictures", captions="a cat in ink style", images=images)
    assert pictures.get_ram_usage() == 2 * 3 * 8 * 8
