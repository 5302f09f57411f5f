"""The download of the paper's CLIP in a real server and on its page, and attempts of other websites
to start it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import websocket
from comfy_page import open_page, open_tab
from live_server import PACK_FOLDER, LiveServer, running_server
from playwright.sync_api import Browser, Locator, Page, Response, expect

SIZES = {"open_clip_config.json": 604, "open_clip_model.safetensors": 605_143_316}
MEGABYTE = b"\0" * 1_000_000
OPEN_BUTTON = f"""async () => {{
  const {{ downloadButton }} = await import("/extensions/{PACK_FOLDER}/js/clip_download.js");
  const panel = document.createElement("div");
  panel.className = "unlearn";
  panel.id = "tried";
  panel.style = "position: fixed; z-index: 9999; inset: 100px auto auto 100px; width: 500px;";
  panel.append(downloadButton());
  document.body.append(panel);
}}"""


def test_the_page_learns_that_the_server_is_offline(server: LiveServer) -> None:
    state = server.get("/unlearn/scorer")
    assert (state["state"], state["source"]) == ("absent", "huggingface.co")
    assert state["total"] == sum(SIZES.values())
    ws = websocket.create_connection(f"ws://127.0.0.1:{server.port}/ws?clientId=scorer")
    try:
        server.post("/api/unlearn/scorer", {})
        ws.settimeout(60)
        state = None
        while state is None or state["error"] is None:
            message = json.loads(ws.recv())
            state = message["data"] if message["type"] == "unlearn.download" else state
    finally:
        ws.close()
    assert "could not be downloaded: HF_HUB_OFFLINE is set" in state["error"]
    assert state["state"] == "absent"
    folder = server.base / "models" / "open_clip"
    assert not folder.exists() or list(folder.iterdir()) == []


@dataclass
class SlowHub:
    """A hub that serves files of zeros of the right sizes, one megabyte at a time.

    Attributes:
        requests: name and Range header of every request.
        hang_up: closes the connections while it is set.
    """

    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    hang_up: threading.Event = field(default_factory=threading.Event)


def hub_handler(hub: SlowHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, byte_range = self.path.rsplit("/", 1)[1], self.headers["Range"]
            hub.requests.append((name, byte_range))
            start = int(byte_range[len("bytes=") : -1]) if byte_range else 0
            size = SIZES[name]
            self.send_response(206 if byte_range else 200)
            self.send_header("Content-Length", str(size - start))
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            with suppress(ConnectionError):  # raised when the client cancels
                while start < size and not hub.hang_up.is_set():
                    start += self.wfile.write(MEGABYTE[: size - start])
                    time.sleep(0.02)

        def log_message(self, format: str, *args: Any) -> None:
            """Not onto the screen."""

    return Handler


def site_handler(html: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Not onto the screen."""

    return Handler


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def hub() -> Iterator[SlowHub]:
    hub = SlowHub()
    with listening(hub_handler(hub)) as hub.address:
        yield hub
        hub.hang_up.set()


@pytest.fixture(scope="module")
def online(
    comfyui: Path, artifacts: Path, tmp_path_factory: pytest.TempPathFactory, hub: SlowHub
) -> Iterator[LiveServer]:
    """A server that may download from the hub and answers pages of every origin."""
    with running_server(
        comfyui,
        tmp_path_factory.mktemp("online"),
        artifacts / "online.log",
        with_pack=True,
        arguments=["--enable-cors-header"],
        environment={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address},
    ) as server:
        yield server


# All ways in which a page can send a POST to another origin, with and without a referrer.
ATTACK = """<!doctype html><meta charset="utf-8"><body><script>
const url = "TARGET/unlearn/scorer";
let answers = 0;
const count = () => { answers += 1; };
const form = (encoding, policy) => `<form method="post" action="${url}" enctype="${encoding}"
  referrerpolicy="${policy}"><input name='{"a":"' value='"}'></form>`;
const send = `<script>onload = () => setTimeout(() => document.forms[0].submit())</` + `script>`;
const sandboxes = ["allow-forms allow-scripts", "allow-forms allow-scripts allow-same-origin"];
for (const encoding of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
  for (const policy of ["unsafe-url", "no-referrer"])
    for (const sandbox of sandboxes) {
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", sandbox);
      frame.onload = count; // of the form, then of its answer
      frame.srcdoc = form(encoding, policy) + send;
      document.body.append(frame);
    }
for (const referrerPolicy of ["unsafe-url", "no-referrer"]) {
  const post = { method: "POST", body: "{}", referrerPolicy };
  fetch(url, { ...post, mode: "no-cors" }).then(count);
  fetch(url, { ...post, headers: { "Content-Type": "application/json" } }).then(count);
}
navigator.sendBeacon(url, "{}");
</script>"""
ANSWERS = 3 * 2 * 2 * 2 + 2 * 2


def test_no_other_site_can_start_it(online: LiveServer, hub: SlowHub, browser: Browser) -> None:
    statuses: set[int] = set()  # incomplete, as Playwright misses some of the frames' requests

    def note(answer: Response) -> None:
        if answer.request.method == "POST":
            statuses.add(answer.status)

    with (
        listening(site_handler(ATTACK.replace("TARGET", online.url))) as site,
        open_tab(browser) as tab,
    ):
        tab.on("response", note)
        tab.goto(site)
        tab.wait_for_function(f"() => answers === {ANSWERS}")
        tab.wait_for_timeout(500)
    assert statuses == {403}
    assert online.get("/unlearn/scorer")["state"] == "absent"
    assert hub.requests == []


def test_it_shows_progress_is_cancelled_and_resumed(
    online: LiveServer, hub: SlowHub, browser: Browser, artifacts: Path
) -> None:
    with open_tab(browser) as tab, open_page(tab, online, artifacts) as page:
        panel = open_button(tab)
        panel.get_by_role("button", name="Download CLIP (605 MB, from 127.0.0.1)").click()
        bar = panel.get_by_role("progressbar", name="CLIP download")
        expect(bar).to_be_visible()
        expect(panel.get_by_text(re.compile(r"^[1-9]\d* of 605 MB from 127"))).to_be_visible()
        assert 0 < bar.evaluate("bar => bar.position") < 1
        page.screenshot("download_running")
        cancel = panel.get_by_role("button", name="Cancel", exact=True)
        expect(cancel).to_be_focused()

        cancel.click()
        message = "Cancelled. The part downloaded so far is kept."
        expect(panel.get_by_text(message)).to_be_visible()
        expect(bar).to_be_hidden()
        resume = panel.get_by_role("button", name=re.compile(r"^Resume \([1-9]\d* of 605 MB do"))
        expect(resume).to_be_focused()
        page.screenshot("download_cancelled")
        arrived = weights(online).stat().st_size

        page.reload()
        panel = open_button(tab)
        panel.get_by_role("button", name=re.compile(r"^Resume \([1-9]\d* of 605 MB do")).click()
        expect(panel.get_by_role("progressbar")).to_be_visible()
        while len(hub.requests) < 3:  # the configuration, the weights, the rest of the weights
            tab.wait_for_timeout(50)
        assert hub.requests[2] == ("open_clip_model.safetensors", f"bytes={arrived}-")
        # A second panel, or a reloaded page, follows the same download.
        page.reload()
        panel = open_button(tab)
        expect(panel.get_by_role("progressbar")).to_be_visible()

        hub.hang_up.set()
        message_box = panel.locator("[aria-live]")
        expect(message_box).to_have_text(re.compile("could not be downloaded"))
        expect(panel.get_by_role("button", name=re.compile("^Resume"))).to_be_visible()
        page.screenshot("download_failed")
        assert [error for error in page.errors if PACK_FOLDER in error] == []
    assert weights(online).stat().st_size > arrived


def open_button(tab: Page) -> Locator:
    """Add the button alone to the page, instead of a run that ends without figures."""
    tab.evaluate(OPEN_BUTTON)
    return tab.locator("#tried")


def weights(server: LiveServer) -> Path:
    (part,) = (server.base / "models" / "open_clip").glob(".*/open_clip_model.safetensors")
    return part
