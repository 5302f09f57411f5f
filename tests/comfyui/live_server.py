"""A real ComfyUI server in a private folder, and the parts of its API that the tests use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import websocket

PACK = Path(__file__).resolve().parents[2]
PACK_FOLDER = "comfyui-unlearn"  # the pack's name in custom_nodes
START_SECONDS = 240  # imports alone take a minute on a busy small machine

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One message of the websocket, for instance `progress` or the pack's own `unlearn.step`."""

    kind: str
    data: Json


@dataclass
class Run:
    """The state, events and outputs of one queued prompt."""

    prompt_id: str
    status: str = "running"  # then success, error or interrupted
    events: list[Event] = field(default_factory=list)
    outputs: dict[str, Json] = field(default_factory=dict)  # by node id
    error: str = ""

    def of_kind(self, kind: str) -> list[Json]:
        return [event.data for event in self.events if event.kind == kind]


@dataclass(frozen=True)
class LiveServer:
    """A running server. `base` contains its models, input, output and custom_nodes folders."""

    port: int
    base: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Json) -> Any:
        """Post JSON.

        Raises:
            ValueError: the server refuses; with its message.
        """
        data = json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=60) as answer:
                text = answer.read()
        except HTTPError as error:
            raise ValueError(f"{path} answered {error.code}: {error.read().decode()}") from error
        return json.loads(text) if text else None

    def object_info(self) -> dict[str, Json]:
        return self.get("/object_info")

    def interrupt(self) -> None:
        """Cancel the current run, like the page's Cancel button."""
        self.post("/interrupt", {})

    def forget_results(self) -> None:
        """Empty the output cache, so that the next run computes everything again."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)  # the worker frees memory without any notification

    def unload_models(self) -> None:
        """Unload all models, like the page's button "Unload Models"."""
        self.post("/free", {"unload_models": True})
        time.sleep(0.5)  # as above

    def run(
        self,
        prompt: Json,
        timeout: float = 300,
        on_event: Callable[[Event], None] | None = None,
    ) -> Run:
        """Queue an API-format prompt and follow it to its end.

        Args:
            on_event: receives every event immediately, for instance to cancel after a step.

        Raises:
            ValueError: the server refuses the prompt or a part of it.
            TimeoutError: the run takes longer than ``timeout`` seconds.
        """
        client = uuid.uuid4().hex
        ws = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}")
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client})
            if answer["node_errors"]:  # the server runs the other nodes, and reports success
                raise ValueError(f"the server refused some nodes: {answer['node_errors']}")
            run = Run(answer["prompt_id"])
            deadline = time.monotonic() + timeout
            while run.status == "running":
                ws.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    message = ws.recv()
                except websocket.WebSocketTimeoutException:
                    self.interrupt()
                    raise TimeoutError(f"prompt not done after {timeout:g} s: {self.log}") from None
                _note(run, message, on_event)
        finally:
            ws.close()
        run.outputs = self._outputs(run.prompt_id)
        return run

    def _outputs(self, prompt_id: str) -> dict[str, Json]:
        for _ in range(50):  # the history entry follows the last message by a moment
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]["outputs"]
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} never reached the history")


def _note(run: Run, message: str | bytes, on_event: Callable[[Event], None] | None) -> None:
    if isinstance(message, bytes):  # a preview picture; the pack sends none
        return
    parsed = json.loads(message, parse_constant=_refuse_constant)
    event = Event(parsed["type"], parsed["data"])
    run.events.append(event)
    if on_event is not None:
        on_event(event)
    if event.data.get("prompt_id") != run.prompt_id:
        return
    if event.kind == "execution_success":
        run.status = "success"
    elif event.kind == "execution_interrupted":
        run.status = "interrupted"
    elif event.kind == "execution_error":
        run.status = "error"
        run.error = f"{event.data['exception_type']}: {event.data['exception_message']}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"a websocket message contains {name}, which the page cannot parse")


def private_environment(home: Path) -> dict[str, str]:
    """The environment of a process that must neither read nor change the user's settings."""
    home.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "MPLBACKEND", "PYTHONPATH"):
        environment.pop(name, None)  # with the first two, comfy-cli would use another Python
    environment.update(
        PATH=os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
        HOME=str(home),
        USERPROFILE=str(home),
        XDG_CACHE_HOME=str(home / ".cache"),
        XDG_CONFIG_HOME=str(home / ".config"),
        XDG_DATA_HOME=str(home / ".local" / "share"),
        LANG="C.UTF-8",
        LC_ALL="C.UTF-8",
        TZ="UTC",
        HF_HUB_OFFLINE="1",
        COMFY_NO_WATCH="1",
        COMFY_CLI_NO_REMOTE_REFRESH="1",
        DO_NOT_TRACK="1",
    )
    return environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_base(base: Path, with_pack: bool, packs: Sequence[Path] = ()) -> Path:
    """Create a folder for ComfyUI's `--base-directory`, with further node packs."""
    for name in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    if with_pack:
        (base / "custom_nodes" / PACK_FOLDER).symlink_to(PACK, target_is_directory=True)
    for pack in packs:
        (base / "custom_nodes" / pack.name).symlink_to(pack, target_is_directory=True)
    return base


def server_arguments(base: Path, port: int) -> list[str]:
    database = f"sqlite:///{base / 'user' / 'comfyui.db'}"
    places = ["--base-directory", str(base), "--database-url", database]
    return ["--cpu", "--port", str(port), "--disable-auto-launch", *places]


@contextmanager
def running_server(
    comfyui: Path,
    base: Path,
    log: Path,
    with_pack: bool,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    packs: Sequence[Path] = (),
) -> Iterator[LiveServer]:
    """A server in an empty base directory, with additional arguments, environment variables and
    node packs."""
    server = LiveServer(free_port(), make_base(base, with_pack, packs), log)
    command = [sys.executable, "main.py", *server_arguments(base, server.port), *arguments]
    environment = {**private_environment(base / "home"), **(environment or {})}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=comfyui, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            wait_until_up(server, lambda: process.poll() is None)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_up(server: LiveServer, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while alive() and time.monotonic() < deadline:
        try:
            server.get("/system_stats")
            return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"ComfyUI did not come up on port {server.port}; its log ends:\n{tail}")
