"""Advanced inputs on the nodes: folded away unless they differ from their defaults."""

from __future__ import annotations

import pytest
from comfy_page import ComfyPage
from front_ends import OWN, View
from playwright.sync_api import Locator, expect
from workflow_files import DEMO, Overrides, read, with_widgets

UNLEARN = "UnlearnRestrictedGradient"
CHANGED: Overrides = {UNLEARN: {"saliency": 0.5, "method": "GradDiff"}}
ON_CANVAS = """type => {
  const node = app.graph.nodes.find((one) => one.type === type);
  return node.widgets.filter((one) => node.isWidgetVisible(one)).map(({ name }) => name);
}"""
PRESS = """type => {
  const node = app.graph.nodes.find((one) => one.type === type);
  const button = node.widgets.find(({ name }) => name === "unlearn more");
  button.callback();
  return button.label;
}"""
GAP = """type => {  // between the last input and the button, after drawing
  const node = app.graph.nodes.find((one) => one.type === type);
  const visible = node.widgets.filter((one) => node.isWidgetVisible(one));
  const i = visible.findIndex(({ name }) => name === "unlearn more");
  return visible[i].y - visible[i - 1].y;
}"""
BUTTON = "unlearn more"


def inputs_of(page: ComfyPage) -> dict[str, bool]:
    """The widgets of the unlearn node by name, and whether each is advanced."""
    schema = page.server.object_info()[UNLEARN]["input"]
    entries = {**schema["required"], **schema.get("optional", {})}
    return {
        name: bool(rest[0].get("advanced"))
        for name, (_, *rest) in entries.items()
        if rest and "default" in rest[0]
    }


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_the_classic_look_folds_them_behind_a_button(page: ComfyPage) -> None:
    inputs = inputs_of(page)
    usual = {name for name, advanced in inputs.items() if not advanced}
    assert len(usual) < len(inputs) / 2  # most are rarely needed
    page.load_workflow(read(DEMO))
    few = set(page.page.evaluate(ON_CANVAS, UNLEARN)) & {*inputs, BUTTON}
    assert few == {*usual, BUTTON}
    page.load_workflow(with_widgets(read(DEMO), CHANGED, page.server.object_info()))
    assert set(page.page.evaluate(ON_CANVAS, UNLEARN)) >= {*few, "saliency", "method"}

    # An input set by the panel appears as well, and is folded away when it is reset.
    laid_out = page.laid_out()
    page.set_widget(UNLEARN, "keep_step", 4)
    assert "keep_step" in page.page.evaluate(ON_CANVAS, UNLEARN)
    page.set_widget(UNLEARN, "keep_step", 0)
    assert "keep_step" not in page.page.evaluate(ON_CANVAS, UNLEARN)
    assert page.laid_out() == laid_out

    page.fit_view()
    assert page.page.evaluate(GAP, UNLEARN) < 30
    assert page.page.evaluate(PRESS, UNLEARN) == "▾ Fewer settings"
    assert set(page.page.evaluate(ON_CANVAS, UNLEARN)) >= set(inputs)
    page.look_at(UNLEARN, 0.8)
    page.screenshot("advanced_open")
    folded = len(inputs) - len(usual) - 2
    assert page.page.evaluate(PRESS, UNLEARN) == f"▸ {folded} more settings"
    assert page.laid_out() == laid_out

    # Neither the prompt nor the saved file contains the button.
    saved = page.page.evaluate("() => app.graph.serialize()")
    (node,) = [one for one in saved["nodes"] if one["type"] == UNLEARN]
    values = with_widgets(read(DEMO), CHANGED, page.server.object_info())
    (expected,) = [one for one in values["nodes"] if one["type"] == UNLEARN]
    assert node["widgets_values"] == expected["widgets_values"]
    prompt = page.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert not any(BUTTON in one["inputs"] for one in prompt.values())


@pytest.mark.both_front_ends
@pytest.mark.nodes_2
def test_nodes_2_folds_inputs_at_their_defaults(page: ComfyPage, view: View) -> None:
    """By its own button; the front end of the oldest supported ComfyUI has none and shows every
    input."""
    inputs = inputs_of(page)
    page.load_workflow(with_widgets(read(DEMO), CHANGED, page.server.object_info()))
    page.look_at(UNLEARN, 0.5)
    node = page.page.locator("[data-node-id]").filter(has_text="Restricted Gradient Unlearn")

    def label(name: str) -> Locator:
        return node.get_by_text(name, exact=True)

    for name, advanced in inputs.items():
        folded = view.front_end != OWN and advanced and name not in CHANGED[UNLEARN]
        expect(label(name)).to_have_count(0 if folded else 1)
    if view.front_end == OWN:
        return
    page.set_widget(UNLEARN, "keep_step", 4)
    expect(label("keep_step")).to_be_visible()
    page.set_widget(UNLEARN, "keep_step", 0)
    expect(label("keep_step")).to_have_count(0)
    node.get_by_test_id("advanced-inputs-button").click()
    for name in inputs:
        expect(label(name)).to_have_count(1)
    page.screenshot(f"advanced_{view.name}")
    node.get_by_test_id("advanced-inputs-button").click()
    expect(label("batch_size")).to_have_count(0)
    expect(label("saliency")).to_be_visible()
