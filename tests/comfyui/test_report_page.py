"""The HTML report in the output folder, opened in a browser from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from live_server import LiveServer
from playwright.sync_api import Browser
from workflow_files import DEMO, QUICK, as_prompt, read, with_widgets

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def report(server: LiveServer) -> Path:
    """The HTML file of a quick demo run."""
    info = server.object_info()
    server.forget_results()
    run = server.run(as_prompt(with_widgets(read(DEMO), QUICK, info), info))
    assert run.status == "success", run.error
    (content,) = [o["unlearn_report"][0] for o in run.outputs.values() if "unlearn_report" in o]
    names = {file["label"]: file["filename"] for file in content["files"]}
    output = server.base / "output"
    assert (output / names["JSON"]).is_file()
    return output / names["HTML"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_self_contained_and_its_sliders_work_by_keyboard(
    browser: Browser,
    report: Path,
    artifacts: Path,
    scheme: Literal["light", "dark"],
    width: int,
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    urls: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    try:
        page.goto(report.as_uri())
        first = page.locator(".slider").first
        slider = first.get_by_role("slider")
        assert slider.get_attribute("aria-label")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert first.evaluate("e => e.style.getPropertyValue('--at')") == "51%"
        page.locator(".all input").first.fill("10")
        assert slider.input_value() == "10"
        loaded = "[...document.images].every((i) => i.complete && i.naturalWidth > 0)"
        assert page.evaluate(loaded)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) > 382) == (scheme == "light")
        page.screenshot(path=artifacts / f"report_{scheme}_{width}.png")
    finally:
        page.close()
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
    assert messages == []
