"""The editable tables of prompts and captions in the real page."""

from __future__ import annotations

import re

import pytest
from comfy_page import ComfyPage
from front_ends import View
from page_parts import DIVERSIFY, OWN_PICTURES, button, open_demo, scale
from PIL import Image
from playwright.sync_api import Locator, expect

SLOW_FIRST_ANSWER = """() => {
  const { api } = comfyAPI.api;
  const fetchApi = api.fetchApi.bind(api);
  let slow = 1000;
  api.fetchApi = async (...options) => {
    const wait = slow;
    slow = 0;
    const answer = await fetchApi(...options);
    await new Promise((go) => setTimeout(go, wait));
    return answer;
  };
}"""


def forget_prompts(page: ComfyPage, view: View) -> Locator:
    """The fields of the forget prompts in the demo's four pairs, after opening the table."""
    open_demo(page)
    page.look_at(DIVERSIFY, scale(view))
    button(page, "Show the prompts").click()
    fields = page.page.get_by_label("with the concept")
    expect(fields).to_have_count(4)
    return fields


def test_the_table_follows_the_words(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(DIVERSIFY, scale(view))
    page.set_widget(DIVERSIFY, "train_count", 5)
    fields = page.page.get_by_label("with the concept")
    expect(fields).to_have_count(0)  # the table is not open yet
    button(page, "Show the prompts").click()
    expect(fields).to_have_count(5)
    page.set_widget(DIVERSIFY, "test_count", 900)
    label = re.compile(r"^for testing \(900\), \d+ of them different$")
    expect(page.page.get_by_role("tab", name=label)).to_be_visible()
    page.set_widget("UnlearnForgetConcept", "concept", "pixel")
    expect(
        page.page.get_by_text(re.compile("^replacements: 'pixel' is or contains"))
    ).to_be_visible()
    page.set_widget("UnlearnForgetConcept", "replacements", "noto, ink")
    expect(page.page.get_by_text(re.compile("^replacements:"))).to_have_count(0)
    expect(fields.first).to_have_value(re.compile("pixel"))


@pytest.mark.both_front_ends
def test_see_and_edit_the_prompts(page: ComfyPage, view: View) -> None:
    fields = forget_prompts(page, view)
    assert page.widget(DIVERSIFY, "edited_prompts") == ""

    fields.first.fill("a whale without the word")
    fields.first.blur()
    expect(page.page.get_by_text(re.compile("does not mention 'ink'"))).to_be_visible()
    expect(fields.first).to_have_value("a whale without the word")
    page.queue()  # must not ignore the invalid edit
    assert page.wait_for_end(60) == "execution_error"
    expect(fields.first).to_have_value("a whale without the word")
    page.page.keyboard.press("Escape")  # closes ComfyUI's own dialog about the error

    fields.first.fill("an ink whale")
    page.page.keyboard.press("Tab")
    expect(page.page.get_by_text("Edited. The inputs above are no longer used.")).to_be_visible()
    expect(page.page.get_by_label("without the concept").first).to_be_focused()
    page.page.get_by_label("Delete this pair").last.click()
    expect(fields).to_have_count(3)
    page.screenshot(f"edited_{view.name}")

    # The edits are saved with the workflow.
    saved = page.page.evaluate("() => app.graph.serialize()")
    page.load_workflow(saved)
    expect(fields.first).to_have_value("an ink whale")
    expect(fields).to_have_count(3)
    page.look_at(DIVERSIFY, scale(view))
    button(page, "Start over").click()
    expect(fields).to_have_count(4)
    assert page.widget(DIVERSIFY, "edited_prompts") == ""


def test_an_edit_during_a_request_is_not_lost(page: ComfyPage, view: View) -> None:
    """Nor is an edit during a run that was queued before it."""
    fields = forget_prompts(page, view)
    page.page.evaluate(SLOW_FIRST_ANSWER)
    page.set_widget(DIVERSIFY, "train_count", 3)
    fields.first.fill("an ink whale")
    fields.first.blur()
    page.page.wait_for_timeout(2000)
    expect(fields.first).to_have_value("an ink whale")
    assert "an ink whale" in page.widget(DIVERSIFY, "edited_prompts")

    before = {"concept": {"kind": "style"}, "train": [], "test": []}
    page.page.evaluate(
        """([type, set]) => {
          const node = String(app.graph.nodes.find((one) => one.type === type).id);
          app.api.dispatchCustomEvent("executed", { node, output: { unlearn_prompts: [set] } });
        }""",
        [DIVERSIFY, before],
    )
    expect(fields.first).to_have_value("an ink whale")


def test_two_quick_edits_are_both_stored(page: ComfyPage, view: View) -> None:
    """Even if the answer to the first arrives last."""
    fields = forget_prompts(page, view)
    page.page.evaluate(SLOW_FIRST_ANSWER)
    for i, words in enumerate(("an ink whale", "an ink gull")):
        fields.nth(i).fill(words)
        fields.nth(i).blur()
    page.page.wait_for_timeout(2000)
    edited = page.widget(DIVERSIFY, "edited_prompts")
    assert "an ink whale" in edited
    assert "an ink gull" in edited


def test_the_prompts_of_a_concept_behind_a_reroute(page: ComfyPage, view: View) -> None:
    open_demo(page)
    link = """([inserted, type, input]) => {
      const graph = app.graph;
      const to = graph.nodes.find((node) => node.type === type);
      const slot = to.inputs.findIndex(({ name }) => name === input);
      const from = to.getInputNode(slot);
      const between = LiteGraph.createNode(inserted);
      graph.add(between);
      if (from) from.connect(0, between, 0);
      between.connect(0, to, slot);
    }"""
    page.page.evaluate(link, ["Reroute", DIVERSIFY, "concept"])
    page.look_at(DIVERSIFY, scale(view))
    button(page, "Show the prompts").click()
    expect(page.page.get_by_label("with the concept")).to_have_count(4)
    page.page.evaluate(link, ["PrimitiveInt", DIVERSIFY, "train_count"])
    button(page, "Refresh").click()
    expect(page.page.get_by_text(re.compile("^train_count is linked"))).to_be_visible()


def test_read_and_edit_the_captions_of_own_pictures(page: ComfyPage, view: View) -> None:
    folder = page.server.base / "input" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("boat", "owl"):
        Image.new("RGB", (64, 64), "white").save(folder / f"{name}.png")
    (folder / "owl.txt").write_text("an ink owl\n\non a branch\n", encoding="utf-8")
    page.reload()  # with the new folder in its lists
    node = {"id": 1, "type": OWN_PICTURES, "pos": [0, 0], "size": [420, 400], "mode": 0}
    node |= {"order": 0, "flags": {}, "properties": {}}
    node["widgets_values"] = ["an ink thing", "mine", False]
    ids = {"last_node_id": 1, "last_link_id": 0}
    page.load_workflow({"version": 0.4, **ids, "nodes": [node], "links": []})
    page.look_at(OWN_PICTURES, scale(view))
    page.queue()
    assert page.wait_for_end(60) == "execution_success"
    boat = page.page.get_by_label("Caption of boat.png")
    owl = page.page.get_by_label("Caption of owl.png")
    expect(boat).to_have_value("an ink thing")
    expect(owl).to_have_value("an ink owl on a branch")

    boat.fill("an ink\nboat ")
    page.page.keyboard.press("Tab")
    expect(owl).to_be_focused()
    expect(boat).to_have_value("an ink boat")
    page.screenshot(f"captions_{view.name}")
    assert page.widget(OWN_PICTURES, "captions") == "an ink thing\nboat.png: an ink boat"
    page.queue()
    assert page.wait_for_end(60) == "execution_success"
    expect(boat).to_have_value("an ink boat")
    boat.fill(" ")
    page.page.keyboard.press("Tab")
    expect(boat).to_have_value("an ink boat")
    button(page, "Start over").click()
    assert page.widget(OWN_PICTURES, "captions") == "an ink thing"
    expect(page.page.get_by_text(re.compile("^Press Run. Then you can read"))).to_be_visible()

    # What the person has written in the field stays, or comes back where the table replaced it.
    own = "an ink thing\nowl.png: mine\nboat.png: mine, too"
    page.set_widget(OWN_PICTURES, "captions", own)
    page.queue()
    assert page.wait_for_end(60) == "execution_success"
    expect(boat).to_have_value("mine, too")
    expect(button(page, "Start over")).to_have_count(0)
    for caption in ("a boat", "an ink boat"):
        boat.fill(caption)
        boat.blur()
    edited = "an ink thing\nowl.png: mine\nboat.png: an ink boat"
    assert page.widget(OWN_PICTURES, "captions") == edited
    page.load_workflow(page.page.evaluate("() => app.graph.serialize()"))
    page.look_at(OWN_PICTURES, scale(view))
    page.queue()
    assert page.wait_for_end(60) == "execution_success"
    button(page, "Start over").click()
    assert page.widget(OWN_PICTURES, "captions") == own
