"""Workflows of earlier versions keep their values although inputs have moved since.

The fixtures are the five templates of version 0.1.0, each with the prompt that this version created
from it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from comfy_page import ComfyPage
from live_server import Json
from workflow_files import node_of_type, read

SAVED = Path(__file__).with_name("fixtures") / "0.1.0"
OLD = sorted(file for file in SAVED.glob("*.json") if not file.stem.endswith(".prompt"))
UNLEARN, EVALUATE = "UnlearnRestrictedGradient", "UnlearnEvaluateAlignment"
PROMPT = "async () => (await app.graphToPrompt()).output"


def meaning(prompt: Json) -> dict[str, Any]:
    """Type and inputs of each node, without titles and the like."""
    return {node: (one["class_type"], one["inputs"]) for node, one in prompt.items()}


def with_later_inputs(prompt: Json) -> dict[str, Any]:
    """The meaning of a prompt of 0.1.0, with the effective values of inputs added since."""
    for one in prompt.values():
        if one["class_type"] == "UnlearnLoadModel":
            one["inputs"]["clip_skip"] = 0
        if one["class_type"] == UNLEARN:
            inputs = one["inputs"]
            later = {"generation_seed": inputs["seed"], "uce_tokens": "to the end"}
            inputs.update(later, recipe="as saved", diversified=True, strength=1.0)
            inputs.update(picture_pairs=10_000, picture_steps=inputs["generation_steps"])
            inputs.update(prompt_protection=0.0, effort="normal", harden=False)
        if one["class_type"] == "UnlearnSaveCheckpoint":
            one["inputs"]["lora_names"] = "ComfyUI"
    return meaning(prompt)


def load(page: ComfyPage, workflow: Json) -> dict[str, Any]:
    page.load_workflow(workflow)
    return meaning(page.page.evaluate(PROMPT))


def test_all_five_exist() -> None:
    assert len(OLD) == 5
    assert all(file.with_suffix(".prompt.json").exists() for file in OLD)


@pytest.mark.both_front_ends
def test_workflows_of_0_1_0_open_with_the_same_meaning(page: ComfyPage) -> None:
    for file in OLD:
        expected = with_later_inputs(read(file.with_suffix(".prompt.json")))
        assert load(page, read(file)) == expected, file.stem
        # Saved by this version and opened again: nothing is moved twice.
        saved = page.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
        assert load(page, saved) == expected, file.stem


@pytest.mark.both_front_ends
def test_an_input_newer_than_the_file_has_its_default(page: ComfyPage) -> None:
    (demo,) = [file for file in OLD if file.stem == "remove a style (demo)"]
    older = copy.deepcopy(read(demo))
    node = node_of_type(older, UNLEARN)
    node["widgets_values"][0] = "GradDiff"
    del node["widgets_values"][-1]  # warm_start_weight, the input added last
    prompt = load(page, older)
    (inputs,) = [values for kind, values in prompt.values() if kind == UNLEARN]
    assert (inputs["method"], inputs["warm_start_weight"]) == ("GradDiff", 2.0)


@pytest.mark.both_front_ends
def test_an_old_edit_in_closed_form_opens_as_that_recipe(page: ComfyPage) -> None:
    (demo,) = [file for file in OLD if file.stem == "remove a style (demo)"]
    older = copy.deepcopy(read(demo))
    node_of_type(older, UNLEARN)["widgets_values"][0] = "UCE (closed form)"
    prompt = load(page, older)
    (inputs,) = [values for kind, values in prompt.values() if kind == UNLEARN]
    assert (inputs["method"], inputs["recipe"]) == ("UCE (closed form)", "UCE")


@pytest.mark.both_front_ends
@pytest.mark.parametrize(("saved", "shown"), [("all", "quick"), ("wordings", "wordings")])
def test_earlier_probes_keep_their_meaning(page: ComfyPage, saved: str, shown: str) -> None:
    (demo,) = [file for file in OLD if file.stem == "remove a style (demo)"]
    older = copy.deepcopy(read(demo))
    node_of_type(older, EVALUATE)["widgets_values"][2] = saved
    prompt = load(page, older)
    (inputs,) = [values for kind, values in prompt.values() if kind == EVALUATE]
    assert inputs["probes"] == shown
