"""ComfyUI's own web page in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from live_server import Json, LiveServer
from playwright.sync_api import Browser, ConsoleMessage, Page

LOAD_SECONDS = 120
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # or a first visit opens the Templates dialog
    "Comfy.Minimap.Visible": False,
}
HIDE_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_RECORD_EVENTS = """() => {
  window.seen = {progress: 0, previews: 0, steps: 0, ended: null};
  const api = window.app.api;
  api.addEventListener("progress", () => { window.seen.progress += 1; });
  api.addEventListener("b_preview", () => { window.seen.previews += 1; });
  api.addEventListener("unlearn.step", () => { window.seen.steps += 1; });
  for (const end of ["execution_success", "execution_error", "execution_interrupted"])
    api.addEventListener(end, () => { window.seen.ended = end; });
}"""


@dataclass
class ComfyPage:
    """The page, what it logged as errors, and the handful of things a person does with it."""

    page: Page
    server: LiveServer
    artifacts: Path
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self._note(str(error)))

    def open(self) -> None:
        self.server.post("/settings", SETTINGS)
        self.page.add_init_script(HIDE_BANNER)
        self.page.goto(self.server.url)
        self.page.wait_for_function(
            "() => window.app && window.app.graph && window.app.extensionManager"
        )
        self.page.evaluate(_RECORD_EVENTS)

    def load_workflow(self, workflow: Json) -> None:
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.evaluate("() => window.app.canvas.setDirty(true, true)")

    def queue(self) -> None:
        self.page.evaluate("() => window.app.queuePrompt(0)")

    def wait_for_preview(self, seconds: float) -> None:
        """Until a live preview came, or the run ended without one."""
        self.page.wait_for_function(
            "() => window.seen.previews > 0 || window.seen.ended", timeout=seconds * 1000
        )

    def wait_for_end(self, seconds: float) -> str:
        """The name of the event that ended the run: `execution_success` or another."""
        self.page.wait_for_function("() => window.seen.ended", timeout=seconds * 1000)
        return self.page.evaluate("() => window.seen.ended")

    def seen(self) -> dict[str, int]:
        """How many `progress`, `previews` and `steps` events the page has had."""
        return self.page.evaluate("() => window.seen")

    def shown_images(self) -> dict[str, list[str]]:
        """By node type: the addresses of the pictures that its node shows, once loaded."""
        self.page.wait_for_function(
            "() => window.app.graph._nodes.every(n => (n.imgs ?? []).every(i => i.complete))"
        )
        return self.page.evaluate(
            """() => Object.fromEntries(window.app.graph._nodes.map(n => [
                n.type, (n.imgs ?? []).filter(i => i.naturalWidth > 0).map(i => i.src)]))"""
        )

    def laid_out(self) -> list[Json]:
        """Type, position and size of every node as the page draws it."""
        return self.page.evaluate(
            "() => app.graph._nodes.map(n => ({type: n.type, pos: [...n.pos], size: [...n.size]}))"
        )

    def fit_view(self) -> None:
        self.page.evaluate(
            "() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')"
        )
        self.page.wait_for_timeout(1000)  # the view glides there

    def screenshot(self, name: str) -> Path:
        """With all texts, which the page leaves out of a view from afar to save work."""
        file = self.artifacts / f"{name}.png"
        usual = self.page.evaluate("() => window.app.canvas.min_font_size_for_lod")
        self._smallest_text(0)
        self.page.screenshot(path=file)
        self._smallest_text(usual)
        return file

    def _smallest_text(self, size: float) -> None:
        self.page.evaluate(
            "size => { app.canvas.min_font_size_for_lod = size; app.canvas.draw(true, true); }",
            size,
        )

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"{message.text} {message.location.get('url', '')}")

    def _note(self, text: str) -> None:
        """Without what differs from run to run: port, line numbers and the names of bundles."""
        text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)
        text = re.sub(r"-[\w-]{8}\.js(:\d+)*", ".js", text)
        self.errors.append(text.strip())


@contextmanager
def open_page(browser: Browser, server: LiveServer, artifacts: Path) -> Iterator[ComfyPage]:
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    # The page asks ComfyUI's registry about nodes it does not know; a test asks nobody outside.
    outside = re.compile(rf"^(?!{re.escape(server.url)}/|data:|blob:)")
    context.route(outside, lambda route: route.fulfill(status=200, json={}))
    context.set_default_timeout(LOAD_SECONDS * 1000)
    page = ComfyPage(context.new_page(), server, artifacts)
    page.open()
    try:
        yield page
    finally:
        context.close()
