"""comfy-cli starts the server, runs the workflow and validates the pack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_command import ComfyCli
from live_server import LiveServer, free_port, make_base, server_arguments, wait_until_up
from workflow_files import DEMO, QUICK, node_of_type, read, with_widgets


@pytest.fixture
def launched(comfy: ComfyCli, tmp_path: Path) -> Iterator[LiveServer]:
    """A server with the pack, started by `comfy launch --background`."""
    base = make_base(tmp_path / "base", with_pack=True)
    server = LiveServer(free_port(), base, tmp_path / "launch.log")
    result = comfy("launch", "--background", "--", *server_arguments(base, server.port))
    server.log.write_text(result.stdout)
    try:
        assert result.returncode == 0, result.stdout
        wait_until_up(server, lambda: True)
        yield server
    finally:
        comfy("stop")


def test_launch_and_run_the_demo(launched: LiveServer, comfy: ComfyCli, tmp_path: Path) -> None:
    quick = tmp_path / DEMO.name
    quick.write_text(json.dumps(with_widgets(read(DEMO), QUICK, launched.object_info())))
    address = ["--host", "127.0.0.1", "--port", str(launched.port)]
    result = comfy("run", "--workflow", str(quick), "--wait", *address)
    assert result.returncode == 0, result.stdout
    (entry,) = launched.get("/history").values()
    assert entry["status"]["status_str"] == "success"
    last = str(node_of_type(read(DEMO), "UnlearnSaveCheckpoint")["id"])
    assert last in entry["outputs"], "the run ended before the model was saved"


def test_run_fails_if_a_node_fails(server: LiveServer, comfy: ComfyCli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    empty = {"UnlearnForgetConcept": {"concept": ""}}
    broken.write_text(json.dumps(with_widgets(read(DEMO), empty, server.object_info())))
    address = ["--host", "127.0.0.1", "--port", str(server.port)]
    result = comfy("run", "--workflow", str(broken), "--wait", *address)
    assert result.returncode != 0
    assert "concept" in result.stdout


def test_the_pack_is_valid(comfy: ComfyCli) -> None:
    result = comfy("node", "validate")
    assert result.returncode == 0, result.stdout
    assert "error" not in result.stdout.lower(), result.stdout
