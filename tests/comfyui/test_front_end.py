"""The only file that uses ComfyUI's front end, and the page's behaviour without its features."""

from __future__ import annotations

import re

import pytest
from comfy_page import ComfyPage
from front_ends import View
from live_server import PACK
from page_parts import DIVERSIFY, LOAD, UNLEARN, button, open_demo, phase, scale
from playwright.sync_api import ConsoleMessage, Route, expect

SCRIPTS = PACK / "web" / "js"
ADAPTER = SCRIPTS / "comfy.js"
INTERNALS = re.compile(
    r"scripts/(?:app|api)\.js|_nodes\b|default_connection_color|link_type_colors|nodeData|"
    r"lastNodeErrors|\.afterQueued|\.visibility|surfaces|\bLiteGraph\b|\bcomfyAPI\b|"
    r"extensionManager|\.computeSize|\.onConfigure|\.constructor\."
)
# What a front end may lack: feature -> code by which comfy.js accesses it.
OPTIONAL = {
    "looking through the graph": "graph?.nodes ?? graph?._nodes",
    "presets that fill the fields": "node.constructor.nodeData?.input",
    "colours of links": "app.canvas?.default_connection_color_byType",
    "short messages": "app.extensionManager?.toast",
    "messages about skipped nodes": "app.lastNodeErrors",
    "reading the chosen language": 'app.ui?.settings?.getSettingValue?.("Comfy.Locale")',
}


def test_no_other_script_touches_it() -> None:
    assert INTERNALS.search(ADAPTER.read_text(encoding="utf-8"))
    others = [script for script in SCRIPTS.glob("*.js") if script != ADAPTER]
    for script in others:
        assert INTERNALS.findall(script.read_text(encoding="utf-8")) == [], script.name


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_a_missing_feature_disables_only_that_feature(page: ComfyPage, view: View) -> None:
    """All of them at once: the rest works, and the console has one line for each."""

    def without_features(route: Route) -> None:
        script = ADAPTER.read_text(encoding="utf-8")
        for code in OPTIONAL.values():
            assert code in script
            script = script.replace(code, "undefined")
        script = script.replace('"lastNodeErrors" in app', "false")
        route.fulfill(body=script, content_type="text/javascript")

    warnings: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.text.startswith("Unlearn:"):
            warnings.append(message.text)

    page.page.route("**/js/comfy.js", without_features)
    page.page.on("console", note)
    try:
        page.reload()
        for _ in range(2):
            open_demo(page)
        page.set_widget(DIVERSIFY, "preset", "nudity")  # cannot fill the fields
        page.look_at(DIVERSIFY, scale(view))
        button(page, "Show the prompts").click()
        expect(page.page.get_by_label("with the concept")).to_have_count(4)
        page.queue()
        assert page.wait_for_end(180) == "execution_success"
        page.look_at(UNLEARN, scale(view))
        expect(phase(page)).to_have_text("Done: 4 steps.")
    finally:
        page.page.remove_listener("console", note)
        page.page.unroute("**/js/comfy.js")
    missing = [name for name in OPTIONAL if name != "short messages"]  # no node was skipped
    start = "Unlearn: this version of ComfyUI's page does not support"
    assert sorted(warnings) == sorted(f"{start}: {name}." for name in missing)


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_load_model_describes_a_cached_model(page: ComfyPage, view: View) -> None:
    """For a graph that the page has just opened, when the server still has all its results."""
    open_demo(page)
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    loaded = page.page.get_by_text(re.compile(r"^emoji-canvas\n"))
    page.look_at(LOAD, scale(view))
    expect(loaded).to_be_visible()
    open_demo(page)  # as another graph
    placeholder = page.page.get_by_text("Details of the loaded model appear here.")
    page.look_at(LOAD, scale(view))
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    expect(loaded).to_be_visible()
    expect(placeholder).to_have_count(0)
    page.reload()  # without another run
    page.look_at(LOAD, scale(view))
    expect(loaded).to_be_visible()
