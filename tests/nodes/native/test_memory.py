"""Native models under ComfyUI's own memory management, on a pretended accelerator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ..pack import ROOT

DEVICE = "pretended:0"
NAMES = ("flux", "qwen-image", "sdxl", "sd15")
every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of ``pretended_gpu`` by model."""
    folder = tmp_path_factory.mktemp("device")
    process = subprocess.run(
        [sys.executable, "-m", "tests.nodes.native.pretended_gpu", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert process.returncode == 0, process.stderr[-4000:]
    values = json.loads(process.stdout.splitlines()[-1])
    assert tuple(values) == NAMES
    return values


@every_model
def test_it_is_loaded_and_trained_on_the_gpu(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["loaded"] == facts[name]["trained"] == [DEVICE]


@every_model
def test_unloading_removes_network_and_trained_layers(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["unloaded"] == ["cpu"]
    assert facts[name]["loaded again"] == [DEVICE]


@every_model
def test_results_survive_unloading_and_a_run_can_be_repeated(
    facts: dict[str, Any], name: str
) -> None:
    first, after_unloading, second_run = facts[name]["results"]
    assert first == after_unloading == second_run
    base, trained = first
    assert base != trained


@every_model
def test_comfyui_may_load_the_given_model_in_between(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["after the given model"] == [True]


@every_model
def test_only_the_trained_layers_need_more_memory(facts: dict[str, Any], name: str) -> None:
    registered, trained = facts[name]["memory"]
    assert registered == trained


@every_model
def test_long_work_unloads_other_models(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["another's model"] == [True, False]


@every_model
def test_an_unused_result_is_freed(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["dropped result"] == [True, True]
