"""The pack in ComfyUI's own page: load the demo, queue it, see it work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from comfy_page import ComfyPage, open_page, open_tab
from live_server import Json, LiveServer, running_server
from playwright.sync_api import Browser, expect
from workflow_files import DEMO, QUICK, WORKFLOWS, overlap, read, with_widgets

# A workflow of ComfyUI's own nodes: what the page logs for it, it logs without us.
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


# The source of every method that a pack could wrap or replace.
METHODS = """() => Object.fromEntries(
  [LiteGraph.LGraph, LiteGraph.LGraphNode, LiteGraph.LGraphCanvas, app.constructor,
   app.api.constructor, EventTarget, Element, HTMLElement, Array, Object, Promise].map((one) => [
    one.name,
    Object.entries(Object.getOwnPropertyDescriptors(one.prototype))
      .map(([name, { value, get, set }]) => `${name}: ${value} ${get} ${set}`),
  ]))"""


@dataclass(frozen=True)
class Bare:
    """The page of a server without the pack: what it logs as errors, and its methods."""

    errors: list[str]
    methods: dict[str, list[str]]


@pytest.fixture(scope="module")
def bare_page(
    comfyui: Path, browser: Browser, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bare:
    base = tmp_path_factory.mktemp("bare")
    log = artifacts / "bare_server.log"
    with (
        running_server(comfyui, base, log, with_pack=False) as bare,
        open_tab(browser) as tab,
        open_page(tab, bare, artifacts) as page,
    ):
        page.load_workflow(CORE_WORKFLOW)
        page.queue()
        assert page.wait_for_end(60) == "execution_success"
        methods = page.page.evaluate(METHODS)
    return Bare(page.errors, methods)


def test_demo_in_the_page(page: ComfyPage, server: LiveServer, bare_page: Bare) -> None:
    own_seed = {**QUICK["UnlearnRestrictedGradient"], "seed": 6}  # no state is kept of it
    widgets = {**QUICK, "UnlearnRestrictedGradient": own_seed}
    page.load_workflow(with_widgets(read(DEMO), widgets, server.object_info()))
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


def test_no_method_of_the_page_is_patched(page: ComfyPage, bare_page: Bare) -> None:
    page.load_workflow(read(DEMO))
    methods = page.page.evaluate(METHODS)
    assert methods.keys() == bare_page.methods.keys()
    for name, own in methods.items():
        assert own == bare_page.methods[name], name


def test_choosing_a_preset_writes_its_text(page: ComfyPage) -> None:
    page.load_workflow(read(DEMO))
    written = page.page.evaluate(
        """() => {
          const node = app.graph._nodes.find(({ type }) => type === "UnlearnDiversifyPrompts");
          const widget = (name) => node.widgets.find((one) => one.name === name);
          widget("preset").value = "nudity";
          widget("preset").callback("nudity");
          return [widget("templates").value, widget("dimensions").value];
        }"""
    )
    assert "{concept} {person}" in written[0]
    assert written[1].startswith("person: woman, man")


VISIBLE = """type => {
  const node = app.graph._nodes.find((one) => one.type === type);
  return node.widgets.filter((one) => !one.hidden).map(({ name }) => name);
}"""
UNLEARN = "UnlearnRestrictedGradient"


def test_rare_inputs_are_folded_away(page: ComfyPage, server: LiveServer) -> None:
    """All but those that the workflow changes, until somebody asks for them."""
    page.load_workflow(read(DEMO))
    few = page.page.evaluate(VISIBLE, UNLEARN)
    assert "objective" in few
    assert "saliency" not in few
    changed = {UNLEARN: {"saliency": 0.5, "method": "GradDiff"}}
    page.load_workflow(with_widgets(read(DEMO), changed, server.object_info()))
    assert set(page.page.evaluate(VISIBLE, UNLEARN)) == {*few, "saliency", "method"}

    # What the panel sets is seen as well, and folded away with the rest once it is reset.
    assign = """([type, name, value]) => {
      const widget = app.graph._nodes.find((one) => one.type === type)
        .widgets.find((one) => one.name === name);
      widget.value = value;
      widget.callback(value);
    }"""
    usual = page.laid_out()
    page.page.evaluate(assign, [UNLEARN, "keep_step", 4])
    assert "keep_step" in page.page.evaluate(VISIBLE, UNLEARN)
    page.page.evaluate(assign, [UNLEARN, "keep_step", 0])
    assert "keep_step" not in page.page.evaluate(VISIBLE, UNLEARN)
    assert page.laid_out() == usual

    press = """type => {
      const node = app.graph._nodes.find((one) => one.type === type);
      const button = node.widgets.find(({ name }) => name === "unlearn more");
      button.callback();
      return button.label;
    }"""
    before = page.laid_out()
    gap = """type => {  // between the last input and the button, once they have been drawn
      const { widgets } = app.graph._nodes.find((one) => one.type === type);
      const shown = widgets.filter((one) => !one.hidden);
      const i = shown.findIndex(({ name }) => name === "unlearn more");
      return shown[i].y - shown[i - 1].y;
    }"""
    page.fit_view()
    assert page.page.evaluate(gap, UNLEARN) < 30
    assert page.page.evaluate(press, UNLEARN) == "▾ Fewer settings"
    opened = page.page.evaluate(VISIBLE, UNLEARN)
    assert {"npo_beta", "warm_start", "keep_step"} < set(opened)
    assert page.page.evaluate(press, UNLEARN) == f"▸ {len(opened) - len(few) - 2} more settings"
    assert page.laid_out() == before

    # Neither the prompt nor the file that is saved knows of the button.
    saved = page.page.evaluate("() => app.graph.serialize()")
    (node,) = [one for one in saved["nodes"] if one["type"] == UNLEARN]
    values = with_widgets(read(DEMO), changed, server.object_info())
    (wanted,) = [one for one in values["nodes"] if one["type"] == UNLEARN]
    assert node["widgets_values"] == wanted["widgets_values"]
    prompt = page.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert not any("unlearn more" in one["inputs"] for one in prompt.values())


def test_a_model_that_is_not_going_to_be_saved_is_spoken_of(
    page: ComfyPage, server: LiveServer
) -> None:
    """ComfyUI runs the rest of the graph, and marks what it leaves out by a red frame alone."""
    (server.base / "models" / "diffusers" / "taken").mkdir(parents=True, exist_ok=True)
    widgets = {**QUICK, "UnlearnSaveCheckpoint": {"name": "taken", "overwrite": False}}
    page.load_workflow(with_widgets(read(DEMO), widgets, server.object_info()))
    page.queue()
    told = page.page.get_by_text("Unlearn: Save Checkpoint: left out of this run")
    expect(told).to_be_visible()
    expect(page.page.get_by_text(re.compile("'taken' exists already"))).to_be_visible()
    page.screenshot("left_out")
    assert page.wait_for_end(180) == "execution_success"


def test_no_two_nodes_overlap_as_the_page_lays_them_out(page: ComfyPage) -> None:
    """A node grows to hold its widgets, whatever size the file gives it."""
    for path in WORKFLOWS:
        page.load_workflow(read(path))
        page.page.wait_for_timeout(1000)
        nodes = page.laid_out()
        assert len(nodes) == len(read(path)["nodes"])
        for one, other in combinations(nodes, 2):
            said = f"{path.stem}: {one['type']} lies over {other['type']}"
            assert not overlap(one, other), said
