"""ComfyUI's own web page in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from front_ends import LOCALE, NODES_2, PALETTE
from live_server import Json, LiveServer
from playwright.sync_api import Browser, ConsoleMessage, Page

LOAD_SECONDS = 120
SETTINGS: Json = {
    "Comfy.TutorialCompleted": True,  # or a first visit opens the Templates dialog
    "Comfy.Minimap.Visible": False,
    NODES_2: False,
    PALETTE: "dark",
    LOCALE: "en",
    "LiteGraph.Canvas.MaximumFps": 10,  # drawn without a GPU, which costs a core at full speed
}
HIDE_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
FLAGS = (
    "--headless",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a test asks nobody outside
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

NOT_OURS = (
    "net::ERR_NAME_NOT_RESOLVED",  # the page asks ComfyUI's registry about nodes it does not know
    "[Jobs API]",  # which a newer page asks for, and the oldest supported ComfyUI has not
    "JobsApiError",
    "/api/jobs?",
)

_RECORD_EVENTS = """() => {
  window.seen = {progress: 0, steps: 0, ended: null};
  const api = window.app.api;
  api.addEventListener("progress", () => { window.seen.progress += 1; });
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

    def open(self, settings: Json) -> None:
        self.server.post("/settings", {**SETTINGS, **settings})
        self.page.goto(f"{self.server.url}/features")  # a small answer of the same origin
        self.page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        self.page.goto(self.server.url)
        self._wait_until_ready()

    def reload(self) -> None:
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_function(
            "() => window.app && window.app.graph && window.app.extensionManager"
        )
        self.page.evaluate(_RECORD_EVENTS)

    def load_workflow(self, workflow: Json) -> None:
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.evaluate("() => window.app.canvas.setDirty(true, true)")

    def queue(self) -> None:
        self.expect_another_end()
        self.page.evaluate("() => window.app.queuePrompt(0)")

    def expect_another_end(self) -> None:
        """Before something else than ``queue`` starts a run."""
        self.page.evaluate("() => { window.seen.ended = null; window.seen.steps = 0; }")

    def widget(self, node_type: str, name: str) -> Any:
        """The value of a widget of the one node of its type."""
        return self.page.evaluate(
            """([type, name]) => app.graph.nodes.find((node) => node.type === type)
                .widgets.find((widget) => widget.name === name).value""",
            [node_type, name],
        )

    def set_widget(self, node_type: str, name: str, value: object) -> None:
        """As if a person had written it, of which the page tells its extensions."""
        self.page.evaluate(
            """([type, name, value]) => {
              const node = app.graph.nodes.find((node) => node.type === type);
              const widget = node.widgets.find((widget) => widget.name === name);
              widget.value = value;
              widget.callback?.(value);
              app.extensionManager.workflow.activeWorkflow.changeTracker.checkState();
            }""",
            [node_type, name, value],
        )

    def look_at(self, node_type: str, scale: float) -> None:
        """Bring a node to the upper left of the view."""
        self.page.evaluate(
            """([type, scale]) => {
              const [x, y] = app.graph.nodes.find((node) => node.type === type).pos;
              app.canvas.ds.scale = scale;
              app.canvas.ds.offset = [60 / scale - x, 90 / scale - y];
              app.canvas.setDirty(true, true);
            }""",
            [node_type, scale],
        )
        self.page.wait_for_timeout(500)

    def wait_for_end(self, seconds: float) -> str:
        """The name of the event that ended the run: `execution_success` or another."""
        self.page.wait_for_function("() => window.seen.ended", timeout=seconds * 1000)
        return self.page.evaluate("() => window.seen.ended")

    def seen(self) -> dict[str, int]:
        """How many `progress` and `steps` events the page has had."""
        return self.page.evaluate("() => window.seen")

    def laid_out(self) -> list[Json]:
        """Type, position and size of every node as the page draws it."""
        return self.page.evaluate(
            "() => app.graph.nodes.map(n => ({type: n.type, pos: [...n.pos], size: [...n.size]}))"
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

    def note_message(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(known in text for known in NOT_OURS):
            self.note(text)

    def note(self, text: object) -> None:
        """Without what differs from run to run: port, line numbers and the names of bundles."""
        text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", str(text))
        text = re.sub(r"-[\w-]{8}\.js(:\d+)*", ".js", text)
        self.errors.append(text.strip())


@contextmanager
def open_tab(browser: Browser) -> Iterator[Page]:
    """An empty tab. What is opened in it again and again loads in half the time of a new one."""
    context = browser.new_context(viewport={"width": 1700, "height": 1200})
    context.set_default_timeout(LOAD_SECONDS * 1000)
    tab = context.new_page()
    tab.add_init_script(HIDE_BANNER)
    yield tab
    context.close()


@contextmanager
def open_page(
    tab: Page, server: LiveServer, artifacts: Path, settings: Json | None = None
) -> Iterator[ComfyPage]:
    """The page, opened anew in the tab and ready, as one who was never here finds it.

    Args:
        settings: of the person; the server keeps them, so each caller gives the same ones.
    """
    page = ComfyPage(tab, server, artifacts)
    tab.on("console", page.note_message)
    tab.on("pageerror", page.note)
    try:
        page.open(settings or {})
        yield page
    finally:
        tab.remove_listener("console", page.note_message)
        tab.remove_listener("pageerror", page.note)
        tab.goto("about:blank")  # or it would follow, and slow down, what comes next
