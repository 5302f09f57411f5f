"""Appearance of the pack's parts on both front ends in every look: contrast, colours, labels."""

from __future__ import annotations

import pytest
from comfy_page import ComfyPage
from front_ends import OWN, View
from page_parts import SAVE, UNLEARN, a_run, open_demo, scale, send
from playwright.sync_api import expect

pytestmark = pytest.mark.every_view

LEAST = 4.5  # WCAG's level AA for text
LINK_COLORS = {"UNLEARN_MODEL": (179, 157, 219), "UNLEARN_RESULT": (79, 157, 99)}

# Height of the empty space below the last line of the live panel, in pixels.
EMPTY_SPACE = """() => {
  const panel = document.querySelector(".unlearn .chart").closest(".unlearn");
  const bottom = (one) => one.getBoundingClientRect().bottom;
  const parts = [...panel.children].filter((one) => one.checkVisibility());
  const seen = parts.filter((one) => !one.matches(".spoken"));
  const zoom = panel.getBoundingClientRect().width / panel.offsetWidth;
  return (bottom(panel) - Math.max(...seen.map(bottom))) / zoom;
}"""

# Contrast of each text and line of the pack with its background: [ratio, element, colour,
# background].
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) =>
    [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = ([r, g, b]) => [r, g, b]
    .map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const parents = (element) => {
    const list = [];
    for (let one = element; one; one = one.parentElement) list.push(one);
    return list;
  };
  const behind = (element) => parents(element)
    .map((one) => rgba(getComputedStyle(one).backgroundColor))
    .reduceRight((below, color) => over(color, below), [0, 0, 0, 1]);
  const opacity = (element) => parents(element)
    .slice(0, parents(element).findIndex((one) => one.matches(".unlearn")) + 1)
    .reduce((all, one) => all * Number(getComputedStyle(one).opacity), 1);
  const measure = (element, color, what) => {
    const paper = behind(element);
    const [r, g, b, a] = rgba(color);
    const ink = over([r, g, b, a * opacity(element)], paper);
    const [low, high] = [light(ink), light(paper)].sort((one, other) => one - other);
    return [(high + 0.05) / (low + 0.05), what, ink, paper];
  };
  const results = [];
  for (const element of document.querySelectorAll(".unlearn *")) {
    if (!element.checkVisibility() || element.matches(".side, .edge, .main")) continue;
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    const name = `${element.tagName}.${element.getAttribute("class") ?? ""}`;
    const shape = element instanceof SVGElement;
    if (own) results.push(measure(element, shape ? style.fill : style.color, `text ${name}`));
    if (shape && style.stroke !== "none" && !element.matches("text, g, svg"))
      results.push(measure(element, style.stroke, `line ${name}`));
    if (!shape && parseFloat(style.borderTopWidth) && style.borderTopColor !== "rgba(0, 0, 0, 0)")
      results.push(measure(element.parentElement, style.borderTopColor, `border ${name}`));
  }
  return results;
}"""


def steps() -> list[list[object]]:
    """Steps with agreement, conflict and a gap."""
    cosines = [0.4, -0.3, 0.2, -0.6]
    return [[i + 1, 0.1 * i, None if i == 2 else 0.2, c, c < 0] for i, c in enumerate(cosines)]


def test_every_text_and_line_can_be_read(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    page.queue()
    assert page.wait_for_end(180) == "execution_success"
    expect(page.page.get_by_role("cell", name="concept absent (UA)")).to_be_visible()
    page.page.get_by_label("Pictures by step").wait_for()
    assert page.page.evaluate(EMPTY_SPACE) < 24
    run = a_run(page, steps=steps(), phase="unlearning", done=4, of=9, ending=True)
    send(page, "unlearn.run", run)
    page.screenshot(f"contrast_{view.name}")
    seen = page.page.evaluate(CONTRASTS)
    kinds = {kind.split(" ")[1] for _, kind, *_ in seen}
    assert {"polyline.", "line.agree", "line.conflict", "line.grid", "STRONG.phase"} <= kinds
    assert len(seen) > 80
    assert [one for one in seen if one[0] < LEAST] == []


def test_slots_and_links_have_their_colours(page: ComfyPage, view: View) -> None:
    open_demo(page)
    page.look_at(UNLEARN, scale(view))
    colors = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in LINK_COLORS.items()}
    for name, color in colors.items():
        slots = "([name]) => app.canvas.default_connection_color_byType[name]"
        assert page.page.evaluate(slots, [name]) == color
        style = """([name]) => getComputedStyle(document.documentElement)
            .getPropertyValue("--color-datatype-" + name).trim()"""
        assert page.page.evaluate(style, [name]) == color
    if view.nodes_2:  # the colours on the page itself
        painted = page.page.evaluate(
            """() => [...document.querySelectorAll("[data-node-id] *")]
                .map((one) => getComputedStyle(one).backgroundColor)"""
        )
        for rgb in LINK_COLORS.values():
            assert "rgb({}, {}, {})".format(*rgb) in painted


@pytest.mark.nodes_2
def test_the_labels_of_switches_are_not_cut(page: ComfyPage, view: View) -> None:
    if view.front_end == OWN:
        return  # it has a switch without labels
    open_demo(page)
    page.look_at(SAVE, 1.0)
    node = page.page.locator("[data-node-id]").filter(has_text="Unlearn: Save Checkpoint")
    for label in ("keep", "replace"):
        text = node.get_by_text(label, exact=True)
        expect(text).to_be_visible()
        assert text.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), label
