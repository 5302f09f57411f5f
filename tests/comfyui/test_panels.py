"""The panels on the nodes in the real page: watching, stopping and rewinding a run, and comparing
its results, in both front ends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from comfy_page import ComfyPage, open_page
from front_ends import EVERY_VIEW, LOCALE, View
from live_server import PACK, LiveServer
from page_parts import (
    DIVERSIFY,
    EVALUATE,
    UNLEARN,
    a_run,
    button,
    open_demo,
    phase,
    scale,
    send,
)
from playwright.sync_api import Page, expect
from workflow_files import DEMO, QUICK, read, with_widgets

SEEDS = {view.name: seed for seed, view in enumerate(EVERY_VIEW)}  # no view reuses another's run
STEPS = "() => Number(document.querySelector('.unlearn .chart').dataset.steps)"


def wait_for_steps(page: ComfyPage, count: int) -> int:
    page.page.wait_for_function(f"() => ({STEPS})() >= {count}")
    return page.page.evaluate(STEPS)


def wait_for_new_steps(page: ComfyPage, count: int) -> None:
    page.page.wait_for_function(f"() => window.seen.steps >= {count}")


@pytest.mark.both_front_ends
def test_watch_reload_stop_and_go_back(page: ComfyPage, view: View) -> None:
    """Everything that a user can do during a run."""
    open_demo(page, steps=500, preview_every=2, seed=SEEDS[view.name])
    page.look_at(UNLEARN, scale(view))
    page.queue()
    wait_for_new_steps(page, 3)  # the panel may still show an earlier run of this workflow
    before = wait_for_steps(page, 3)
    page.screenshot(f"live_{view.name}")
    assert wait_for_steps(page, before + 2) > before, "the chart grows"
    expect(phase(page)).to_have_text(re.compile(r"^Unlearning: step \d+ of 500$"))
    expect(page.page.get_by_text(re.compile(r"^about .* left$"))).to_be_visible()

    seen = page.page.evaluate(STEPS)
    page.reload()
    assert wait_for_steps(page, seen) >= seen, "a reloaded page knows the steps before"
    page.look_at(UNLEARN, scale(view))
    assert wait_for_steps(page, seen + 1) > seen, "and follows the run"

    wait_for_steps(page, 6)
    page.expect_another_end()
    # The oldest front end folds no inputs in Nodes 2.0, so that the button may lie below the view.
    button(page, "Stop here and keep").dispatch_event("click")
    assert page.wait_for_end(120) == "execution_success"
    step = page.widget(UNLEARN, "keep_step")
    assert 6 <= step < 500, "the workflow records where the run ended"
    expect(phase(page)).to_contain_text(f"Kept the model after step {step} of 500.")
    page.screenshot(f"stopped_{view.name}")

    # Back to the picture of step 4, by keyboard.
    scrubber = page.page.get_by_label("Pictures by step")
    scrubber.focus()
    picture = page.page.locator(".unlearn .strip img").last
    last_source = picture.get_attribute("src")
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    assert picture.get_attribute("src") != last_source
    expect(button(page, "Keep step 4")).to_be_enabled()
    page.screenshot(f"scrubbed_{view.name}")
    page.expect_another_end()
    button(page, "Keep step 4").focus()
    page.page.keyboard.press("Enter")
    assert page.wait_for_end(120) == "execution_success"
    assert page.seen()["steps"] == 0, "nothing was trained again"
    assert page.widget(UNLEARN, "keep_step") == 4
    message = "Kept the model after step 4 of 500. keep_step also ends later runs there."
    expect(phase(page)).to_have_text(message)


@contextmanager
def seconds_later(page: ComfyPage, seconds: float) -> Iterator[None]:
    """Put the page's clock forward. Playwright's own clock cannot be reset for later tests in the
    same browser."""
    page.page.evaluate(
        """ms => {
          const now = performance.now.bind(performance);
          performance.now = () => now() + ms;
        }""",
        1000 * seconds,
    )
    yield
    page.page.evaluate("() => { delete performance.now; }")


def test_events_of_other_graphs_are_ignored(page: ComfyPage, view: View) -> None:
    """Another workflow running meanwhile may have a node of the same id."""
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    run = a_run(page)
    ended = {"state": "kept", "result": 4}

    send(page, "unlearn.run", {**run, **ended, "workflow": "another"})
    expect(page.page.get_by_text(re.compile("^Press Run. The losses"))).to_be_visible()
    assert page.widget(UNLEARN, "keep_step") == 0

    send(page, "unlearn.run", run)
    where = {name: run[name] for name in ("node", "workflow")}
    with seconds_later(page, 4):
        send(
            page,
            "unlearn.phase",
            {**where, "phase": "unlearning", "done": 1, "of": 9, "seconds_left": 60},
        )
        left = page.page.get_by_text(re.compile(r"^about \d+ s left$")).inner_text()
    # Counted from the last event; from the event before, four more seconds would have passed.
    assert left in [f"about {n} s left" for n in (60, 59, 58, 57)]

    send(
        page,
        "unlearn.phase",
        {**where, "phase": "unlearning", "done": 1, "of": 4, "seconds_left": 60},
    )
    short = "Unlearning: step 1 of 4. The run ends there, because keep_step is set (steps: 9)."
    expect(phase(page)).to_have_text(short)

    send(page, "unlearn.run", {**run, **ended})
    expect(phase(page)).to_contain_text("Kept the model after step 4 of 9.")
    assert page.widget(UNLEARN, "keep_step") == 4


def test_an_alarm_is_visible_and_undone_steps_disappear(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    steps = [[n, 0.1, 0.1, 0.0, False] for n in range(1, 6)]
    send(page, "unlearn.run", a_run(page, phase="unlearning", steps=steps))
    assert wait_for_steps(page, 5) == 5
    alarm = {
        "step": 6,
        "kind": "retain ran away",
        "message": "",
        "values": {"back_to": "2", "rate": "0.001"},
    }
    note = "Warning: the picture cache could not be written."
    alarmed = a_run(page, phase="unlearning", steps=steps[:2], alarms=[alarm], notes=[note])
    send(page, "unlearn.run", alarmed)
    expect(page.page.locator(".unlearn .notes")).to_have_text(note)
    expect(page.page.locator(".unlearn .alarm")).to_have_text(
        "Step 6: the retain loss rose beyond its limit. The run went back to step 2 and continues "
        "with a lower learning rate (0.001)."
    )
    assert page.page.evaluate(STEPS) == 2
    # A run that has ended can be started again if a part of it is of an earlier one.
    ended = a_run(page, state="finished", steps=steps, result=5)
    send(page, "unlearn.run", ended)
    expect(button(page, "Start again")).to_be_hidden()
    send(page, "unlearn.run", {**ended, "resumed_at": 3})
    expect(button(page, "Start again")).to_be_visible()


def test_cancel_leaves_a_step_to_keep(page: ComfyPage, view: View) -> None:
    open_demo(page, steps=500, preview_every=2, seed=100 + SEEDS[view.name])
    page.look_at(UNLEARN, scale(view))
    page.queue()
    wait_for_new_steps(page, 4)
    page.server.interrupt()
    assert page.wait_for_end(60) == "execution_interrupted"
    expect(phase(page)).to_have_text(re.compile("^Cancelled after step"))
    page.screenshot(f"cancelled_{view.name}")
    page.page.get_by_label("Pictures by step").focus()
    page.page.keyboard.press("Home")
    page.expect_another_end()
    button(page, "Keep step 2").click()
    assert page.wait_for_end(120) == "execution_success"
    assert page.seen()["steps"] == 0


@pytest.mark.both_front_ends
def test_compare_before_and_after(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(EVALUATE, scale(view))
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    tabs = page.page.locator(".unlearn:has(.compare)").get_by_role("tab")
    assert [name.split(" (")[0] for name in tabs.all_inner_texts()] == [
        "The concept's prompts",
        "Its neighbours",
        "Everything else",
    ]
    expect(page.page.get_by_text(re.compile(r"^'ink' is in \d of 2 pictures"))).to_be_visible()
    slide = page.page.locator(".unlearn .unlearn-slide")
    expect(slide.locator("img")).to_have_count(2)
    for picture in slide.locator("img").all():  # waits until they are loaded
        expect(picture).to_have_js_property("naturalWidth", 64)
    slide.get_by_role("slider").focus()
    page.page.keyboard.press("ArrowRight")
    assert slide.evaluate("one => one.style.getPropertyValue('--at')") == "51%"
    page.screenshot(f"compared_{view.name}")

    button(page, "Full size").click()
    large = page.page.get_by_role("dialog").filter(has=page.page.locator(".unlearn-slide"))
    expect(large).to_be_visible()
    expect(large.get_by_text(re.compile("^1/2 · "))).to_be_visible()
    large.get_by_role("button", name="Next").click()
    expect(large.get_by_text(re.compile("^2/2 · "))).to_be_visible()
    expect(large.locator(".unlearn-slide.small")).to_be_visible()  # its pictures are loaded
    page.screenshot(f"full_size_{view.name}")
    page.page.keyboard.press("Escape")
    expect(large).to_have_count(0)

    # By keyboard: the arrow keys move between tabs, and the panel is labelled by its tab.
    tabs.first.focus()
    page.page.keyboard.press("ArrowLeft")
    rest = page.page.get_by_role("tab", name=re.compile("^Everything else"))
    expect(rest).to_be_focused()
    expect(rest).to_have_attribute("aria-selected", "true")
    panel = page.page.get_by_role("tabpanel", name=re.compile("^Everything else"))
    counts = [int(re.findall(r"\((\d+)\)", name)[0]) for name in tabs.all_inner_texts()]
    assert sum(counts) == 2 + 4, "two pictures of the concept, four of the rest"
    expect(panel.locator(".thumbs button")).to_have_count(counts[-1])
    expect(page.page.get_by_role("cell", name="concept absent (UA)")).to_be_visible()
    with page.page.expect_download() as download:
        page.page.get_by_role("link", name="Report (HTML)").click()
    assert download.value.suggested_filename.endswith(".html")

    # A reloaded page shows the nodes' outputs again.
    page.reload()
    page.look_at(EVALUATE, scale(view))
    expect(slide).to_be_visible()
    assert wait_for_steps(page, 4) == 4

    # While a newer model is in training, these figures are marked as old.
    earlier = page.page.locator(".unlearn[data-earlier]")
    expect(earlier).to_have_count(0)
    page.set_widget(UNLEARN, "seed", 1)
    page.queue()
    expect(earlier).to_have_count(2)  # the figures and the path of the saved model
    page.screenshot(f"earlier_{view.name}")
    assert page.wait_for_end(180) == "execution_success"
    expect(earlier).to_have_count(0)


def test_without_evaluators_nothing_is_downloaded_unasked(page: ComfyPage, view: View) -> None:
    """The demo model without its own CLIP and judge; the server is offline."""
    folder = page.server.base / "models" / "diffusers" / "no judge"
    demo = PACK / "demo" / "models" / "emoji-canvas"
    shutil.copytree(demo, folder, ignore=lambda *_: ["evaluation"], dirs_exist_ok=True)
    page.reload()  # with the new model in its lists
    widgets = {**QUICK, "UnlearnLoadModel": {"model": folder.name}}
    page.load_workflow(with_widgets(read(DEMO), widgets, page.server.object_info()))
    page.look_at(EVALUATE, scale(view))
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    expect(page.page.get_by_text(re.compile("^No evaluator can judge"))).to_be_visible()
    assert not (page.server.base / "models" / "open_clip").exists()
    fetch = button(page, "Download CLIP (605 MB, from huggingface.co)")
    fetch.click()
    expect(page.page.get_by_text(re.compile("HF_HUB_OFFLINE is set"))).to_be_visible()
    expect(fetch).to_be_visible()
    page.screenshot(f"no_judge_{view.name}")


def test_nothing_is_left_of_deleted_nodes(page: ComfyPage) -> None:
    open_demo(page)
    page.page.wait_for_selector(".unlearn", state="attached")
    page.page.evaluate("() => { for (const node of [...app.graph.nodes]) app.graph.remove(node); }")
    page.page.wait_for_timeout(500)
    assert page.page.locator(".unlearn").count() == 0


def test_the_page_is_shown_in_chinese(tab: Page, server: LiveServer, artifacts: Path) -> None:
    with open_page(tab, server, artifacts, {LOCALE: "zh"}) as page:
        open_demo(page)
        page.look_at(DIVERSIFY, 0.8)
        expect(button(page, "显示提示词")).to_be_visible()
        page.screenshot("chinese")
