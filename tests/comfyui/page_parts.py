"""Parts of the demo's page, shared by several tests."""

from __future__ import annotations

import re

from comfy_page import ComfyPage
from front_ends import View
from live_server import Json
from playwright.sync_api import Locator
from workflow_files import DEMO, QUICK, read, with_widgets

LOAD, UNLEARN, DIVERSIFY, EVALUATE, SAVE, OWN_PICTURES = (
    "UnlearnLoadModel",
    "UnlearnRestrictedGradient",
    "UnlearnDiversifyPrompts",
    "UnlearnEvaluateAlignment",
    "UnlearnSaveCheckpoint",
    "UnlearnOwnPictures",
)
NODE = """type => [app.graph.id, String(app.graph.nodes.find((n) => n.type === type).id)]"""


def scale(view: View) -> float:
    """A scale at which whole nodes are in view."""
    return 0.6 if view.nodes_2 else 0.8


def open_demo(page: ComfyPage, **unlearn: object) -> None:
    """The demo workflow with little work to do."""
    widgets = {**QUICK, UNLEARN: {**QUICK[UNLEARN], **unlearn}}
    page.load_workflow(with_widgets(read(DEMO), widgets, page.server.object_info()))
    page.page.wait_for_timeout(500)


def button(page: ComfyPage, name: str | re.Pattern[str]) -> Locator:
    return page.page.get_by_role("button", name=name, exact=True)


def phase(page: ComfyPage) -> Locator:
    """The live panel's line about its run."""
    return page.page.locator(".unlearn .phase")


def send(page: ComfyPage, event: str, data: Json) -> None:
    """Dispatch an event as if the server had sent it."""
    page.page.evaluate("([event, data]) => app.api.dispatchCustomEvent(event, data)", [event, data])


def a_run(page: ComfyPage, **fields: object) -> Json:
    """A run of the graph in the page, in the server's format."""
    workflow, node = page.page.evaluate(NODE, UNLEARN)
    return {
        "key": "a run", "node": node, "workflow": workflow, "state": "running", "note": "",
        "phase": "", "done": 0, "of": 1, "seconds_left": None, "total": 9,
        "automatic": {}, "prompts": [], "forget_count": 0, "steps": [], "alarms": [],
        "before": None,
        "previews": [], "saved": [], "result": None, **fields,
    }  # fmt: skip
