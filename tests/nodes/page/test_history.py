"""Outputs of a graph's nodes in its last run, from ComfyUI's own history."""

from __future__ import annotations

from typing import Any

import execution
import pytest

from ..conftest import FakeServer
from ..pack import call

LOAD, FORGET, UNLEARN = "UnlearnLoadModel", "UnlearnForgetConcept", "UnlearnRestrictedGradient"


def prompt(model: str = "demo", concept: str = "ink", **unlearn: object) -> dict[str, Any]:
    return {
        "1": {"class_type": LOAD, "inputs": {"model": model}},
        "2": {"class_type": FORGET, "inputs": {"concept": concept}},
        "4": {"class_type": UNLEARN, "inputs": {"model": ["1", 0], "of": ["2", 0], **unlearn}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["4", 1]}},
    }


class History:
    """ComfyUI's own queue, with a method to add finished runs."""

    def __init__(self, page: FakeServer) -> None:
        self.queue = execution.PromptQueue(page)
        setattr(page, "prompt_queue", self.queue)  # noqa: B010

    def add(self, workflow: str, graph: dict[str, Any], outputs: dict[str, Any]) -> None:
        extra = {"extra_pnginfo": {"workflow": {"id": workflow}}}
        number = len(self.queue.history)
        self.queue.put((number, f"run {number}", graph, extra, ["4"]))
        item = self.queue.get()
        assert item is not None
        result = {"outputs": {node: {"text": [text]} for node, text in outputs.items()}, "meta": {}}
        self.queue.task_done(item[1], result, status=None)


@pytest.fixture
def history(page: FakeServer) -> History:
    return History(page)


def last(workflow: str) -> Any:
    return call("GET", f"/unlearn/last_run?workflow={workflow}")[1]


def texts(run: Any) -> dict[str, str]:
    return {node: output["text"][0] for node, output in run["outputs"].items()}


def test_the_newest_run_of_the_graph_is_used(history: History) -> None:
    assert last("mine") is None
    history.add("mine", prompt(seed=1), {"1": "loaded", "4": "first", "9": "a picture"})
    history.add("mine", prompt(seed=2), {"1": "loaded", "4": "second"})
    history.add("another", prompt(seed=3), {"1": "loaded", "4": "third"})
    run = last("mine")
    assert texts(run) == {"1": "loaded", "4": "second"}, "only of our nodes"
    assert run["prompt"]["4"]["inputs"]["seed"] == 2
    assert set(run["prompt"]) == {"1", "2", "4"}


def test_a_cached_node_has_the_output_of_its_computation(history: History) -> None:
    history.add("before", prompt(seed=1), {"1": "demo is loaded", "4": "first"})
    history.add("mine", prompt(seed=2), {"4": "second"})
    assert texts(last("mine")) == {"1": "demo is loaded", "4": "second"}


def test_outputs_for_other_inputs_are_not_shown(history: History) -> None:
    history.add("mine", prompt("demo"), {"1": "demo is loaded", "4": "of demo"})
    history.add("mine", prompt("other"), {})
    assert texts(last("mine")) == {}
    history.add("mine", prompt("demo", "cat"), {})
    assert texts(last("mine")) == {"1": "demo is loaded"}, "another concept is another result"


def test_a_run_queued_by_a_script_has_no_graph(history: History) -> None:
    history.queue.put((0, "run", prompt(), {}, ["4"]))
    item = history.queue.get()
    assert item is not None
    history.queue.task_done(item[1], {"outputs": {}, "meta": {}}, status=None)
    assert last("mine") is None


def test_double_links_cost_no_extra_time(history: History) -> None:
    """Forty loaders in a row, linked by model and clip: 2 to the power of 40 paths."""
    graph: dict[str, Any] = {"0": {"class_type": LOAD, "inputs": {"model": "demo"}}}
    for i in range(1, 41):
        links = {"model": [str(i - 1), 0], "clip": [str(i - 1), 1]}
        graph[str(i)] = {"class_type": "LoraLoader", "inputs": links}
    graph["41"] = {"class_type": UNLEARN, "inputs": {"model": ["40", 0], "sizes": [[1, 2], [3]]}}
    history.add("mine", graph, {"0": "loaded", "41": "done"})
    assert texts(last("mine")) == {"0": "loaded", "41": "done"}


def test_the_graph_of_a_prompt_is_found_during_the_run_and_afterwards(history: History) -> None:
    def workflow() -> Any:
        return call("GET", "/unlearn/workflow?prompt=run")[1]

    assert workflow() is None
    extra = {"extra_pnginfo": {"workflow": {"id": "mine"}}}
    history.queue.put((0, "run", prompt(), extra, ["4"]))
    item = history.queue.get()
    assert item is not None
    assert workflow() == "mine"
    history.queue.task_done(item[1], {"outputs": {}, "meta": {}}, status=None)
    assert workflow() == "mine"
