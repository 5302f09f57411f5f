"""Record the README's animation and the picture of the workflow from a real run of the demo:
``python tests/comfyui/record_live_panel.py`` writes ``docs/live_panel.webp`` and
``docs/workflow.png``. It takes a few minutes and has the same requirements as the page tests."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from comfy_page import FLAGS, SETTINGS, ComfyPage, open_page
from front_ends import LOOKS, newest
from live_server import PACK, running_server
from page_parts import UNLEARN
from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright
from workflow_files import DEMO, read, with_widgets

DOCS = PACK / "docs"
MOST_BYTES = 2_000_000
VIEW: ViewportSize = {"width": 1700, "height": 1200}
CLEAR = (100, 120)  # the page's own bars are left of and above this point
PREVIEW_EVERY = 5  # the template's 20 would give only five pictures
LOOK_EVERY = 700  # ms
FRAME, LAST_FRAME = 110, 4000  # ms
UNLEARNING = "Unlearning"  # the name of the phase in the panel
MOST_FRAMES, MOST_OF_OTHERS = 70, 8  # of that phase, and of each other phase
RUN_SECONDS = 1800

PANEL = """() => {
  const panel = document.querySelector(".unlearn .chart").closest(".unlearn");
  const box = panel.getBoundingClientRect();
  const parts = [...panel.children].filter((one) => !one.matches(".spoken"));
  const visible = parts.filter((one) => one.checkVisibility());
  const bottom = Math.max(...visible.map((one) => one.getBoundingClientRect().bottom));
  return {x: box.x, y: box.y, width: box.width, height: bottom + 10 - box.y};
}"""
PHASE = """() => {
  const panel = document.querySelector(".unlearn .chart").closest(".unlearn");
  return [panel.querySelector(".spoken").textContent, window.seen.ended];
}"""
# Zoom so that all nodes are in the part of the view that is clear of the page's bars.
FIT = """([left, top]) => {
  const nodes = app.graph.nodes.map((node) => node.getBounding());
  const least = (i) => Math.min(...nodes.map((box) => box[i]));
  const most = (i) => Math.max(...nodes.map((box) => box[i] + box[i + 2]));
  const [x, y, right, bottom] = [least(0) - 30, least(1) - 30, most(0) + 30, most(1) + 30];
  const scale = (window.innerWidth - left - 60) / (right - x);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [left / scale - x, top / scale - y];
  app.canvas.setDirty(true, true);
  return {x: left, y: top, width: (right - x) * scale, height: (bottom - y) * scale};
}"""


# The server's folder is a temporary one with a meaningless name.
SHORTEN = """folder => {
  for (const root of document.querySelectorAll(".unlearn")) {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
      texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "ComfyUI");
  }
}"""


@dataclass(frozen=True)
class Frame:
    """A picture of the panel and its phase."""

    phase: str
    picture: bytes


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium: install it (on Debian `apt install chromium`)")
    comfyui = Path(os.environ.get("COMFYUI_PATH") or PACK / ".comfyui" / "ComfyUI").resolve()
    with (
        tempfile.TemporaryDirectory() as room,
        running_server(
            comfyui, Path(room, "base"), Path(room, "log"), with_pack=True, arguments=newest()
        ) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(FLAGS), env={**os.environ, "HOME": room}
        )
        tab = browser.new_context(viewport=VIEW).new_page()
        tab.set_default_timeout(RUN_SECONDS * 1000)
        with open_page(tab, server, Path(room), {**SETTINGS, **LOOKS["classic_dark"]}) as page:
            frames = record(page)
            draw_workflow(page, DOCS / "workflow.png")
        browser.close()
    write_animation(frames, DOCS / "live_panel.webp")


def record(page: ComfyPage) -> list[Frame]:
    """Run the demo and photograph its live panel until the run ends."""
    widgets = {UNLEARN: {"preview_every": PREVIEW_EVERY}}
    page.load_workflow(with_widgets(read(DEMO), widgets, page.server.object_info()))
    page.look_at(UNLEARN, 1.0)
    page.queue()
    page.page.locator(".unlearn .chart").first.wait_for()
    frames: list[Frame] = []
    while True:
        phase, ended = page.page.evaluate(PHASE)
        clip = page.page.evaluate(PANEL)
        frames.append(Frame(phase, page.page.screenshot(clip=clip)))
        if ended:
            break
        page.page.wait_for_timeout(LOOK_EVERY)
    if ended != "execution_success":
        raise RuntimeError(f"the run ended with {ended}")
    return frames


def draw_workflow(page: ComfyPage, file: Path) -> None:
    page.page.evaluate(SHORTEN, str(page.server.base))
    clip = page.page.evaluate(FIT, CLEAR)
    page.page.wait_for_timeout(1500)
    whole = page.screenshot("workflow")
    with Image.open(whole) as picture:
        box = [clip["x"], clip["y"], clip["x"] + clip["width"], clip["y"] + clip["height"]]
        picture.crop(tuple(map(round, box))).convert("RGB").save(file, optimize=True)


def thinned(frames: Sequence[Frame]) -> list[bytes]:
    """The pictures without repetitions, and only a limited number for each phase."""
    selection: list[bytes] = []
    for phase, group in groupby(frames, key=lambda frame: frame.phase):
        distinct = [picture for picture, _ in groupby(frame.picture for frame in group)]
        most = MOST_FRAMES if phase == UNLEARNING else MOST_OF_OTHERS
        every = max(1, -(-len(distinct) // most))
        selection += distinct[::-1][::every][::-1]  # includes the last of each phase
    return selection


def write_animation(frames: Sequence[Frame], file: Path) -> None:
    """Write all frames in one size; the last one stays longest.

    Raises:
        ValueError: the file is larger than ``MOST_BYTES``.
    """
    pictures = [Image.open(io.BytesIO(one)).convert("RGB") for one in thinned(frames)]
    size = (pictures[-1].width, max(picture.height for picture in pictures))
    paper = pictures[0].getpixel((2, 2))
    sheets = [Image.new("RGB", size, paper) for _ in pictures]
    for sheet, picture in zip(sheets, pictures, strict=True):
        sheet.paste(picture)
    durations = [FRAME] * (len(sheets) - 1) + [LAST_FRAME]
    sheets[0].save(
        file,
        save_all=True,
        append_images=sheets[1:],
        duration=durations,
        loop=0,
        quality=70,
        method=6,
    )
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{file} must be at most {MOST_BYTES} bytes, got {file.stat().st_size}; lower "
            "MOST_FRAMES or the quality"
        )


if __name__ == "__main__":
    main()
