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
    "Comfy.TutorialCompleted": True,  # else a first visit opens the Templates dialog
    "Comfy.Minimap.Visible": False,
    NODES_2: False,
    PALETTE: "dark",
    LOCALE: "en",
    "LiteGraph.Canvas.MaximumFps": 10,  # drawing without a GPU uses a whole core at full speed
}
HIDE_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
FLAGS = (
    "--headless",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no requests to other hosts
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
    "[Jobs API]",  # newer pages use it, and the oldest supported ComfyUI lacks it
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
    """The page, the errors that it logged, and the actions of a user."""

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
        """Call this before anything other than ``queue`` starts a run."""
        self.page.evaluate("() => { window.seen.ended = null; window.seen.steps = 0; }")

    def widget(self, node_type: str, name: str) -> Any:
        """The value of a widget of the one node of its type."""
        return self.page.evaluate(
            """([type, name]) => app.graph.nodes.find((node) => node.type === type)
                .widgets.find((widget) => widget.name === name).value""",
            [node_type, name],
        )

    def set_widget(self, node_type: str, name: str, value: object) -> None:
        """Set a widget as a user would; the page then notifies its extensions."""
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
        """The numbers of `progress` and `steps` events that the page has received."""
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
        """Take a screenshot with all texts, which the page omits when zoomed out."""
        file = self.artifacts / f"{name}.png"
        default = self.page.evaluate("() => window.app.canvas.min_font_size_for_lod")
        self._smallest_text(0)
        self.page.screenshot(path=file)
        self._smallest_text(default)
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
        """Record an error without the parts that differ from run to run: port, line numbers and
        names of bundles."""
        text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", str(text))
        text = re.sub(r"-[\w-]{8}\.js(:\d+)*", ".js", text)
        self.errors.append(text.strip())


@contextmanager
def open_tab(browser: Browser) -> Iterator[Page]:
    """An empty tab. Reusing it for several pages halves their loading time."""
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
    """Open the page in the tab as on a first visit, and wait until it is ready.

    Args:
        settings: the user's settings; the server stores them.
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
        tab.goto("about:blank")  # else the page would follow, and slow down, the next test
