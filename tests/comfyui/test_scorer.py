"""The page's way to the paper's CLIP, in a real server that may not reach the network."""

from __future__ import annotations

import json
import time

import websocket
from live_server import LiveServer


def test_the_page_may_ask_and_is_told_what_went_wrong(server: LiveServer) -> None:
    assert server.get("/unlearn/scorer") == server.get("/api/unlearn/scorer")
    assert server.get("/unlearn/scorer")["present"] is False
    ws = websocket.create_connection(f"ws://127.0.0.1:{server.port}/ws?clientId=scorer")
    try:
        assert server.post("/unlearn/scorer", {})["running"] is True
        ws.settimeout(60)
        told = None
        while told is None or told["error"] is None:
            message = json.loads(ws.recv())
            told = message["data"] if message["type"] == "unlearn.download" else told
    finally:
        ws.close()
    assert "could not be fetched" in told["error"]
    time.sleep(0.1)  # the task ends just after it has told
    after = server.get("/unlearn/scorer")
    assert (after["present"], after["running"]) == (False, False)
    folder = server.base / "models" / "open_clip"
    assert not folder.exists() or list(folder.iterdir()) == []
