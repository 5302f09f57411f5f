"""The live chart in the page: appending, thinning, and figures by keyboard."""

from __future__ import annotations

import math

import pytest
from comfy_page import ComfyPage
from front_ends import View
from page_parts import UNLEARN, a_run, open_demo, scale, send
from playwright.sync_api import expect

from unlearn_core.reporting.loss_chart import charted_steps

MANY = 100_000
POINTS = """name =>
  [...document.querySelectorAll(`.unlearn .chart [data-curve="${name}"] polyline`)]
    .flatMap((line) => [...line.points].map(({ x, y }) => [x, y]))"""
# Counts the elements added and removed.
CHANGES = """() => {
  const chart = document.querySelector(".unlearn .chart");
  window.changes = 0;
  new MutationObserver((records) => {
    for (const { addedNodes, removedNodes, target } of records)
      if (target.closest("[data-curve]")) window.changes += addedNodes.length + removedNodes.length;
  }).observe(chart, { childList: true, subtree: true });
}"""


def step(number: int) -> list[object]:
    cosine = math.sin(number)
    return [number, 1 / number, math.cos(number / 5000), cosine, cosine < 0]


@pytest.mark.both_front_ends
def test_a_long_run_is_thinned_as_in_the_report_and_appended_to(
    page: ComfyPage, view: View
) -> None:
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    run = a_run(page, total=MANY + 8, steps=[step(n) for n in range(1, MANY + 1)])
    send(page, "unlearn.run", run)
    points = page.page.evaluate(POINTS, "forget")
    *expected, last = [index + 1 for index in charted_steps(MANY)]
    steps = [x for x, _ in points]
    assert steps == (expected if last not in steps else [*expected, last])
    for x, y in points:
        assert y == pytest.approx(1 / x, rel=1e-6)
    assert len(page.page.evaluate(POINTS, "retain")) == len(points)
    conflicts = page.page.locator('.unlearn .chart [data-curve="cosine"] .conflict')
    assert conflicts.count() >= len(points)  # each covers 128 steps or more, half in conflict

    page.page.evaluate(CHANGES)
    where = {name: run[name] for name in ("node", "workflow")}
    for number in range(MANY + 1, MANY + 9):
        names = ("step", "forget_loss", "retain_loss", "cosine", "conflict")
        values = dict(zip(names, step(number), strict=True))
        send(page, "unlearn.step", {**where, **values, "total": MANY})
    expect(page.page.locator(".unlearn .chart")).to_have_attribute("data-steps", str(MANY + 8))
    assert page.page.evaluate("() => window.changes") < 8 * 8


def test_figures_of_a_step_by_keyboard(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    steps = [[n, n / 10, None if n == 2 else n / 100, 0.5, False] for n in range(1, 5)]
    send(page, "unlearn.run", a_run(page, steps=steps))
    chart = page.page.get_by_role("slider", name="Losses and angle of the two gradients by step")
    chart.focus()
    legend = page.page.locator(".unlearn .legend")
    expect(legend).to_contain_text("step 4")
    page.page.keyboard.press("ArrowLeft")
    expect(legend).to_contain_text("step 3")
    expect(chart).to_have_attribute("aria-valuenow", "3")
    page.page.keyboard.press("Home")
    expect(legend).to_contain_text("forget loss 0.100")
    page.page.keyboard.press("ArrowRight")
    expect(legend).to_contain_text("retain loss –")  # a gap, not 0
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowRight")
    expect(legend).to_contain_text("step 4")
    points = page.page.evaluate(POINTS, "retain")
    assert [x for x, _ in points] == [1, 3, 4]
    assert [y for _, y in points] == pytest.approx([0.01, 0.03, 0.04])
