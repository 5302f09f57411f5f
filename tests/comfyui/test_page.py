"""The pack in ComfyUI's own page: load the demo, queue it, see it work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from comfy_page import ComfyPage, open_page, open_tab
from front_ends import NEWEST, View, newest
from live_server import Json, running_server
from playwright.sync_api import Browser, expect
from workflow_files import DEMO, QUICK, WORKFLOWS, overlap, read, with_widgets

# A workflow of ComfyUI's own nodes: the page logs the same errors for it without the pack.
CORE_WORKFLOW: Json = {
    "version": 0.4,
    "last_node_id": 2,
    "last_link_id": 1,
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "pos": [0, 0],
            "size": [300, 150],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": [64, 64, 1, 255],
        },
        {
            "id": 2,
            "type": "PreviewImage",
            "pos": [400, 0],
            "size": [300, 300],
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}


# The source code of every method that a pack could wrap or replace.
METHODS = """() => Object.fromEntries(
  [LiteGraph.LGraph, LiteGraph.LGraphNode, LiteGraph.LGraphCanvas, app.constructor,
   app.api.constructor, EventTarget, Element, HTMLElement, Array, Object, Promise].map((one) => [
    one.name,
    Object.entries(Object.getOwnPropertyDescriptors(one.prototype))
      .map(([name, { value, get, set }]) => `${name}: ${value} ${get} ${set}`),
  ]))"""


@dataclass(frozen=True)
class Bare:
    """The page of a server without the pack: its logged errors and its methods."""

    errors: list[str]
    methods: dict[str, list[str]]


@pytest.fixture(scope="module")
def bare_pages(
    comfyui: Path, browser: Browser, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bare]:
    """By front end."""

    @cache
    def bare_page(front_end: str) -> Bare:
        base = tmp_path_factory.mktemp("bare")
        log = artifacts / "bare_server.log"
        arguments = newest() if front_end == NEWEST else []
        with (
            running_server(comfyui, base, log, with_pack=False, arguments=arguments) as bare,
            open_tab(browser) as tab,
            open_page(tab, bare, artifacts) as page,
        ):
            page.load_workflow(CORE_WORKFLOW)
            page.queue()
            assert page.wait_for_end(60) == "execution_success"
            return Bare(page.errors, page.page.evaluate(METHODS))

    return bare_page


@pytest.fixture
def bare_page(view: View, bare_pages: Callable[[str], Bare]) -> Bare:
    return bare_pages(view.front_end)


@pytest.mark.classic_look
def test_demo_in_the_page(page: ComfyPage, bare_page: Bare) -> None:
    own_seed = {**QUICK["UnlearnRestrictedGradient"], "seed": 6}  # no other test has this run
    widgets = {**QUICK, "UnlearnRestrictedGradient": own_seed}
    page.load_workflow(with_widgets(read(DEMO), widgets, page.server.object_info()))
    page.fit_view()
    page.screenshot("demo_loaded")
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    page.page.wait_for_timeout(1000)
    page.screenshot("demo_done")

    seen = page.seen()
    assert seen["progress"] > 0
    assert seen["steps"] == QUICK["UnlearnRestrictedGradient"]["steps"]
    assert [error for error in page.errors if error not in bare_page.errors] == []


@pytest.mark.classic_look
def test_no_method_of_the_page_is_patched(page: ComfyPage, bare_page: Bare) -> None:
    page.load_workflow(read(DEMO))
    methods = page.page.evaluate(METHODS)
    assert methods.keys() == bare_page.methods.keys()
    for name, sources in methods.items():
        assert sources == bare_page.methods[name], name


@pytest.mark.classic_look
def test_choosing_a_preset_fills_the_fields(page: ComfyPage) -> None:
    page.load_workflow(read(DEMO))
    templates, dimensions = page.page.evaluate(
        """() => {
          const node = app.graph.nodes.find(({ type }) => type === "UnlearnDiversifyPrompts");
          const widget = (name) => node.widgets.find((one) => one.name === name);
          widget("preset").value = "nudity";
          widget("preset").callback("nudity");
          return [widget("templates").value, widget("dimensions").value];
        }"""
    )
    assert "{concept} {person}" in templates
    assert dimensions.startswith("person: woman, man")


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_message_warns_that_a_model_will_not_be_saved(page: ComfyPage) -> None:
    """ComfyUI runs the rest of the graph, and marks a skipped node only by a red frame."""
    (page.server.base / "models" / "diffusers" / "taken").mkdir(parents=True, exist_ok=True)
    widgets = {**QUICK, "UnlearnSaveCheckpoint": {"name": "taken", "overwrite": False}}
    page.load_workflow(with_widgets(read(DEMO), widgets, page.server.object_info()))
    page.queue()
    title = page.page.get_by_text("Unlearn: Save Checkpoint: skipped in this run")
    expect(title.last).to_be_visible()  # newer pages also repeat it for screen readers
    expect(page.page.get_by_text(re.compile("'taken' exists already")).last).to_be_visible()
    page.screenshot("left_out")
    assert page.wait_for_end(180) == "execution_success"


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_no_two_nodes_overlap_in_the_page(page: ComfyPage) -> None:
    """A node grows to fit its widgets, whatever its size in the file."""
    for path in WORKFLOWS:
        page.load_workflow(read(path))
        page.page.wait_for_timeout(1000)
        nodes = page.laid_out()
        assert len(nodes) == len(read(path)["nodes"])
        for one, other in combinations(nodes, 2):
            message = f"{path.stem}: {one['type']} overlaps {other['type']}"
            assert not overlap(one, other), message
