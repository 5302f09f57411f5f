"""A recipe fills the inputs that belong to it, and a later change of one is shown as such."""

from __future__ import annotations

import pytest
from comfy_page import ComfyPage
from playwright.sync_api import expect
from workflow_files import DEMO, read

UNLEARN = "UnlearnRestrictedGradient"


@pytest.mark.both_front_ends
def test_a_recipe_fills_its_inputs_and_names_what_was_changed(page: ComfyPage) -> None:
    page.load_workflow(read(DEMO))
    line = page.page.locator(".unlearn .recipe")
    expect(line).to_be_hidden()
    page.set_widget(UNLEARN, "steps", 7)
    page.set_widget(UNLEARN, "recipe", "SalUn")
    values = {
        name: page.widget(UNLEARN, name)
        for name in ("objective", "method", "saliency", "retain_weight", "warm_start", "steps")
    }
    assert values == {
        "objective": "random label (SalUn)",
        "method": "GradDiff",
        "saliency": 0.5,
        "retain_weight": 0.1,
        "warm_start": False,
        "steps": 7,  # not part of a recipe
    }
    expect(line).to_be_hidden()

    page.set_widget(UNLEARN, "scope", "full")
    expect(line).to_have_text("Changed from the recipe SalUn: scope")
    page.look_at(UNLEARN, 1)
    page.screenshot("recipe-changed")
    # It is saved with the graph, and shown again when that is opened.
    saved = page.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    page.load_workflow(read(DEMO))
    page.load_workflow(saved)
    expect(line).to_have_text("Changed from the recipe SalUn: scope")
    page.set_widget(UNLEARN, "scope", "auto")
    expect(line).to_be_hidden()

    page.set_widget(UNLEARN, "recipe", "as saved")
    assert page.widget(UNLEARN, "objective") == "random label (SalUn)", "it changes nothing"
    page.set_widget(UNLEARN, "recipe", "ours")
    assert page.widget(UNLEARN, "objective") == "redirect"
    assert page.widget(UNLEARN, "saliency") == 1
