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
    """Where unloaded weights go: to the CPU, whose tensors are of another type than the pretended
    device's, or to a device of the same type, as with CUDA."""
    return request.param


@pytest.fixture(scope="module")
def found(offload: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``pretended_comfyui`` found."""
    folder = tmp_path_factory.mktemp("device")
    command = [sys.executable, "-m", "tests.nodes.pretended_comfyui", str(folder), offload]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_gpu_is_where_models_are_loaded_and_trained(found: dict[str, Any]) -> None:
    assert found["loaded"] == found["trained"] == [DEVICE]


def test_unloading_takes_everything_of_ours_off_the_gpu(
    found: dict[str, Any], offload: str
) -> None:
    assert found["unloaded"] == [offload]
    assert found["listed after unloading"] == 0


def test_a_run_after_unloading_comes_to_the_same(found: dict[str, Any]) -> None:
    first, second = found["results"]
    assert first == second


def test_results_of_every_scope_survive_unloading(found: dict[str, Any]) -> None:
    before, after = found["pictures"]
    assert before == after
    assert len(set(before)) == 3  # of the base, of a trained copy, of a LoRA
    first, second = found["reports"]
    assert first == second


def test_models_that_share_weights_come_and_go_one_by_one(
    found: dict[str, Any], offload: str
) -> None:
    assert found["base alone"] == [[DEVICE], [offload]]
    assert found["beside a run"] == [offload]


def test_only_long_work_sends_other_models_away(found: dict[str, Any]) -> None:
    """Unloaded for a run, but not for saving."""
    assert found["another's model"] == [True, False, True]


def test_what_is_dropped_is_freed_without_garbage_collection(found: dict[str, Any]) -> None:
    assert found["dropped result"] == found["dropped model"] == [True, True]
    listed = found["listed"]
    assert found["listed without it"] == listed - 1
    assert found["listed without any"] == 0


def test_no_judge_outlives_its_evaluation(found: dict[str, Any]) -> None:
    assert found["judges afterwards"] == []


def test_no_language_model_outlives_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_language_model(tmp_path / "models" / "LLM" / "tiny")
    propose = pack_module("unlearn_core.prompts.language_model")
    models: list[weakref.ref[Any]] = []

    class Watched(propose.Proposer):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
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


def test_nothing_of_the_gpu_is_left_half_moved(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that does not fit goes back whole."""
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


def test_outputs_say_what_memory_they_hold(loaded: Any, pairs: Any) -> None:
    """ComfyUI's cache of outputs asks, where memory is short."""
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
