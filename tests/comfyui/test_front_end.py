"""The one file that knows ComfyUI's front end, and what becomes of the page where it lacks
something."""

from __future__ import annotations

import re

import pytest
from comfy_page import ComfyPage
from front_ends import View
from live_server import PACK
from page_parts import DIVERSIFY, LOAD, UNLEARN, button, open_demo, phase, scale
from playwright.sync_api import ConsoleMessage, Route, expect

SCRIPTS = PACK / "web" / "js"
KNOWS = SCRIPTS / "comfy.js"
INTERNALS = re.compile(
    r"scripts/(?:app|api)\.js|_nodes\b|default_connection_color|link_type_colors|nodeData|"
    r"lastNodeErrors|\.afterQueued|\.visibility|surfaces|\bLiteGraph\b|\bcomfyAPI\b|"
    r"extensionManager|\.computeSize|\.onConfigure|\.constructor\."
)
# What a front end may lack: by the feature that needs it, the words by which comfy.js asks for it.
LACKS = {
    "looking through the graph": "graph?.nodes ?? graph?._nodes",
    "presets that fill the fields": "node.constructor.nodeData?.input",
    "colours of links": "app.canvas?.default_connection_color_byType",
    "short messages": "app.extensionManager?.toast",
    "messages about nodes that are left out": "app.lastNodeErrors",
    "reading the chosen language": 'app.ui?.settings?.getSettingValue?.("Comfy.Locale")',
}


def test_no_other_script_touches_it() -> None:
    assert INTERNALS.search(KNOWS.read_text(encoding="utf-8"))
    others = [script for script in SCRIPTS.glob("*.js") if script != KNOWS]
    for script in others:
        assert INTERNALS.findall(script.read_text(encoding="utf-8")) == [], script.name


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_missing_feature_costs_that_feature_alone(page: ComfyPage, view: View) -> None:
    """All of them at once: the rest goes on, and the console has one line for each."""

    def poorer(route: Route) -> None:
        script = KNOWS.read_text(encoding="utf-8")
        for words in LACKS.values():
            assert words in script
            script = script.replace(words, "undefined")
        script = script.replace('"lastNodeErrors" in app', "false")
        route.fulfill(body=script, content_type="text/javascript")

    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.text.startswith("Unlearn:"):
            said.append(message.text)

    page.page.route("**/js/comfy.js", poorer)
    page.page.on("console", hear)
    try:
        page.reload()
        for _ in range(2):
            open_demo(page)
        page.set_widget(DIVERSIFY, "preset", "nudity")  # which fills nothing
        page.look_at(DIVERSIFY, scale(view))
        button(page, "Show the prompts").click()
        expect(page.page.get_by_label("asks for it")).to_have_count(4)
        page.queue()
        assert page.wait_for_end(180) == "execution_success"
        page.look_at(UNLEARN, scale(view))
        expect(phase(page)).to_have_text("Done: 4 steps.")
    finally:
        page.page.remove_listener("console", hear)
        page.page.unroute("**/js/comfy.js")
    lacks = [f"Unlearn: this version of ComfyUI's page does not support: {name}." for name in LACKS]
    lacks.remove(lacks[list(LACKS).index("short messages")])  # nothing was left out
    assert sorted(said) == sorted(lacks)


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_load_model_tells_what_was_loaded_though_it_comes_from_the_cache(
    page: ComfyPage, view: View
) -> None:
    """Of a graph that the page has just opened, when the server still has all its results."""
    open_demo(page)
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    loaded = page.page.get_by_text(re.compile(r"^emoji-canvas\n"))
    page.look_at(LOAD, scale(view))
    expect(loaded).to_be_visible()
    open_demo(page)  # as another graph
    placeholder = page.page.get_by_text("What was loaded appears here.")
    page.look_at(LOAD, scale(view))
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    expect(loaded).to_be_visible()
    expect(placeholder).to_have_count(0)
    page.reload()  # nothing was run since
    page.look_at(LOAD, scale(view))
    expect(loaded).to_be_visible()
