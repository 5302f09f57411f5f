"""Several graphs in the real page, and subgraphs: each result belongs to the graph that it was made
from, on either side of a subgraph's border."""

from __future__ import annotations

import json
import re

import pytest
from comfy_page import ComfyPage
from front_ends import View
from live_server import Json
from page_parts import DIVERSIFY, SAVE, UNLEARN, a_run, button, open_demo, phase, scale, send
from playwright.sync_api import expect
from workflow_files import DEMO, read

CONCEPT = "UnlearnForgetConcept"
ID = "() => app.graph.id"
GRAPH = "() => JSON.parse(JSON.stringify(app.graph.serialize()))"
OPEN_FILE = """text =>
  app.handleFile(new File([text], "dropped.json", { type: "application/json" }))"""
# Into a subgraph, and this into another; the node's execution id then.
INTO_SUBGRAPHS = """([type, depth]) => {
  let inner = app.graph.nodes.find((node) => node.type === type);
  for (let i = 0; i < depth; i++) inner = app.graph.convertToSubgraph(new Set([inner])).node;
  const path = [inner.id];
  for (let one = inner; one.subgraph; path.push(one.id)) one = one.subgraph.nodes[0];
  return path.join(":");
}"""
EARLIER = """id => {
  let node = null;
  let graph = app.graph;
  for (const part of id.split(":")) {
    node = graph.getNodeById(Number(part));
    graph = node.subgraph;
  }
  const panel = node.widgets.map(({ element }) => element).find((one) => one?.matches(".unlearn"));
  return panel.dataset.earlier !== undefined;
}"""


def switch_to(page: ComfyPage, index: int) -> None:
    """To the tab of that number."""
    page.page.evaluate(
        """async (index) => {
          const { openWorkflows, activeWorkflow } = app.extensionManager.workflow;
          const steps = index - openWorkflows.indexOf(activeWorkflow);
          const command = `Workspace.${steps < 0 ? "Previous" : "Next"}OpenedWorkflow`;
          for (let i = 0; i < Math.abs(steps); i++)
            await app.extensionManager.command.execute(command);
        }""",
        index,
    )
    page.page.wait_for_timeout(1000)


def tabs(page: ComfyPage) -> list[str]:
    return page.page.evaluate(
        "() => app.extensionManager.workflow.openWorkflows.map((w) => w.path)"
    )


def opened(page: ComfyPage, workflow: Json) -> str:
    """The id of a graph that was opened as a file, in a tab of its own."""
    page.page.evaluate(OPEN_FILE, json.dumps(workflow))
    page.page.wait_for_timeout(1000)
    return page.page.evaluate(ID)


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_template_that_is_opened_again_is_another_graph(page: ComfyPage) -> None:
    first = opened(page, read(DEMO))
    page.load_workflow(read(DEMO))
    page.page.wait_for_timeout(1000)
    assert page.page.evaluate(ID) != first
    switch_to(page, len(tabs(page)) - 2)
    assert page.page.evaluate(ID) == first


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_file_that_is_open_already_is_another_graph(page: ComfyPage) -> None:
    """A saved workflow has an id, with which the front end opens it as often as one likes."""
    first = opened(page, read(DEMO))
    saved = page.page.evaluate(GRAPH)
    assert saved["id"] == first
    page.set_widget(UNLEARN, "seed", 7)
    page.load_workflow(saved)  # by another name, hence in a new tab
    page.page.wait_for_timeout(1000)
    second = page.page.evaluate(ID)
    assert second != first
    page.load_workflow(saved)
    page.page.wait_for_timeout(1000)
    assert page.page.evaluate(ID) not in (first, second)

    # What is open keeps its id: when one comes back to it, undoes a change, or loads it anew.
    switch_to(page, len(tabs(page)) - 3)
    assert page.page.evaluate(ID) == first
    page.set_widget(UNLEARN, "seed", 8)
    page.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    page.page.wait_for_timeout(500)
    assert page.widget(UNLEARN, "seed") == 7
    assert page.page.evaluate(ID) == first
    page.reload()
    assert page.page.evaluate(ID) == first


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_step_that_was_kept_out_of_view_is_noted(page: ComfyPage, view: View) -> None:
    """Once: what the person changes afterwards stays."""
    open_demo(page, steps=500, preview_every=2, seed=200 + len(view.name))
    page.look_at(UNLEARN, scale(view))
    page.queue()
    page.page.wait_for_function("() => window.seen.steps >= 1")
    page.expect_another_end()
    button(page, "Stop here and keep").click()
    page.load_workflow(read(DEMO))
    assert page.wait_for_end(120) == "execution_success"
    assert page.widget(UNLEARN, "keep_step") == 0, "of the graph in view"
    switch_to(page, len(tabs(page)) - 2)
    page.look_at(UNLEARN, scale(view))
    expect(phase(page)).to_have_text(re.compile(r"^Kept the model after step \d+ of 500"))
    kept = page.widget(UNLEARN, "keep_step")
    expect(phase(page)).to_contain_text(f"after step {kept} of 500")

    page.set_widget(UNLEARN, "keep_step", 0)
    switch_to(page, len(tabs(page)) - 1)
    switch_to(page, len(tabs(page)) - 2)
    expect(phase(page)).to_contain_text(f"after step {kept} of 500")
    page.reload()
    expect(phase(page)).to_contain_text(f"after step {kept} of 500")
    assert page.widget(UNLEARN, "keep_step") == 0


@pytest.mark.both_front_ends
@pytest.mark.classic_look
@pytest.mark.parametrize("depth", [1, 2])
def test_a_concept_across_the_border_of_a_subgraph(page: ComfyPage, view: View, depth: int) -> None:
    """The prompts come from its words, wherever it and the table stand."""
    open_demo(page)
    page.page.evaluate(INTO_SUBGRAPHS, [CONCEPT, depth])
    page.look_at(DIVERSIFY, scale(view))
    button(page, "Show the prompts").click()
    asks = page.page.get_by_label("with the concept")
    expect(asks).to_have_count(4)

    open_demo(page)
    inside = page.page.evaluate(INTO_SUBGRAPHS, [DIVERSIFY, depth])
    page.page.evaluate(
        """id => {
          let graph = app.graph;
          for (const part of id.split(":").slice(0, -1))
            graph = graph.getNodeById(Number(part)).subgraph;
          app.canvas.setGraph(graph);
          const [x, y] = graph.nodes[0].pos;
          app.canvas.ds.scale = 0.8;
          app.canvas.ds.offset = [100 - x, 150 - y];
          app.canvas.setDirty(true, true);
        }""",
        inside,
    )
    page.page.wait_for_timeout(500)
    button(page, "Show the prompts").click()
    expect(asks).to_have_count(4)


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_concept_that_only_a_run_finds(page: ComfyPage, view: View) -> None:
    """It is linked, so nobody is asked to link it."""
    open_demo(page)
    page.page.evaluate(
        """([table, concept]) => {
          const { graph } = app;
          const of = (type) => graph.nodes.find((node) => node.type === type);
          const [to, from] = [of(table), of(concept)];
          const slot = to.inputs.findIndex(({ name }) => name === "concept");
          const between = LiteGraph.createNode("EmptyImage"); // stands for a node of another pack
          graph.add(between);
          between.addOutput("concept", from.outputs[0].type);
          between.connect(between.outputs.length - 1, to, slot);
        }""",
        [DIVERSIFY, CONCEPT],
    )
    page.look_at(DIVERSIFY, scale(view))
    button(page, "Show the prompts").click()
    expect(page.page.get_by_text(re.compile("^concept is linked, and its value"))).to_be_visible()


@pytest.mark.both_front_ends
@pytest.mark.classic_look
@pytest.mark.parametrize(("sender_depth", "receiver_depth"), [(0, 1), (1, 0), (2, 2)])
def test_results_across_the_border_of_a_subgraph_are_marked_as_earlier(
    page: ComfyPage, sender_depth: int, receiver_depth: int
) -> None:
    open_demo(page)
    run = a_run(page)
    saver = page.page.evaluate(INTO_SUBGRAPHS, [SAVE, receiver_depth])
    run["node"] = page.page.evaluate(INTO_SUBGRAPHS, [UNLEARN, sender_depth])
    send(page, "executed", {"node": saver, "output": {"text": ["saved"]}})
    page.page.wait_for_timeout(200)
    assert not page.page.evaluate(EARLIER, saver)
    send(page, "unlearn.run", run)
    page.page.wait_for_timeout(200)
    assert page.page.evaluate(EARLIER, saver)
