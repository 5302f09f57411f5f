"""What survives when ComfyUI's server is killed: ``python -m benchmarks.faults_server``.

A chain is one workflow of the demo model that is stopped seven times, at a random moment of each
phase, and queued again until it ends. Every third stop is Cancel, the others kill the server
(SIGKILL), which is then started again. Everything else is as in ``benchmarks.faults``. Needs a
ComfyUI in ``COMFYUI_PATH``, and the packages of ``tests/requirements.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from benchmarks.cpu_clock import cpu_seconds
from benchmarks.faults_chain import (
    AFTER,
    EARLIER_SEED,
    END,
    NICE,
    PHASES,
    POLL,
    ROOT,
    STEPS,
    Chain,
    Moment,
    Record,
    Reference,
    perform,
)
from benchmarks.faults_files import Place
from unlearn_core.job.console import say

sys.path.append(str(ROOT / "tests" / "comfyui"))

from live_server import (
    PACK_FOLDER,
    Event,
    Json,
    LiveServer,
    free_port,
    make_base,
    private_environment,
    server_arguments,
    wait_until_up,
)
from workflow_files import DEMO, as_prompt, read, with_widgets

ROOM = ROOT / ".build" / "faults-server"
NAME = "server"  # of the records
CHAINS = 9
CANCEL_EVERY = 3  # stops; this one is Cancel
LOADING, *_, EVALUATING, SAVING = PHASES
WIDGETS: dict[str, dict[str, Any]] = {
    "UnlearnDiversifyPrompts": {"train_count": 96, "test_count": 4},
    "UnlearnRestrictedGradient": {
        "steps": STEPS,
        "batch_size": 2,
        "picture_pairs": 6,
        "preview_every": 0,
        "generation_steps": 3,
    },
    "UnlearnEvaluateAlignment": {"pictures": 4, "generation_steps": 3},
    "UnlearnSaveCheckpoint": {"overwrite": True},
}
NODES = {"UnlearnEvaluateAlignment": EVALUATING, "UnlearnSaveCheckpoint": SAVING}
"""The phases of nodes; that of the run reports its phases itself."""
MODEL = "models/diffusers/my-model-without-ink"
WEIGHTS = f"{MODEL}/unet/diffusion_pytorch_model.safetensors"
STATES = "user/unlearn_runs"
FOLDERS = ("models", "output", STATES, "user/unlearn_cache")
SECONDS = 600  # after which a run counts as hanging
KILLED = "killed"  # status of an execution


class Server:
    """A server in a folder of its own, that may be killed and started again."""

    def __init__(self, comfyui: Path, base: Path) -> None:
        self.comfyui, self.base, self.log = comfyui, base, base / "server.log"
        shutil.rmtree(base, ignore_errors=True)
        make_base(base, with_pack=True)
        self._running: tuple[LiveServer, subprocess.Popen[bytes]] | None = None

    @property
    def place(self) -> Place:
        return Place(self.base, FOLDERS, (WEIGHTS,), MODEL, STATES)

    def running(self) -> tuple[LiveServer, subprocess.Popen[bytes]]:
        """The server and its process; started if necessary."""
        if self._running is None:
            live = LiveServer(free_port(), self.base, self.log)
            only_ours = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_FOLDER]
            arguments = [*server_arguments(self.base, live.port), *only_ours, "--disable-api-nodes"]
            environment = {**private_environment(self.base / "home"), "OMP_NUM_THREADS": "1"}
            command = [*NICE, sys.executable, "main.py", *arguments]
            with self.log.open("ab") as sink:
                process = subprocess.Popen(
                    command, cwd=self.comfyui, env=environment, stdout=sink, stderr=sink
                )
            wait_until_up(live, lambda: process.poll() is None)
            self._running = live, process
        return self._running

    def kill(self) -> None:
        if self._running is not None:
            process = self._running[1]
            process.send_signal(signal.SIGKILL)
            process.wait()
            self._running = None


@dataclass
class Execution:
    """One execution of the workflow, which may be stopped at a moment.

    Attributes:
        moment: None to let it end.
        cancels: press Cancel instead of killing the server.
        phase: the current one.
        beginnings: CPU seconds of the server at the beginning of each phase, and at the end.
        stopped_at, interrupted_at: times of the stop, and of the server's report that the
            execution has been interrupted.
        status: at the end: ``KILLED``, success, interrupted, or an error.
        resumed_at: the step after which the run continues, if it does.
        step: the last one.
    """

    server: Server
    prompt: Json
    moment: Moment | None = None
    cancels: bool = False
    phase: str = LOADING
    beginnings: dict[str, float] = field(default_factory=dict)
    stopped_at: float | None = None
    interrupted_at: float | None = None
    status: str = ""
    resumed_at: int | None = None
    step: int = 0

    def run(self) -> None:
        live, process = self.server.running()
        stopper = threading.Thread(target=self._stop, args=(live, process), daemon=True)
        self.beginnings[LOADING] = cpu_seconds(process)
        if self.moment is not None:
            stopper.start()
        try:
            run = live.run(self.prompt, SECONDS, self._on_event)
            self.status = run.error or run.status
        except (websocket.WebSocketException, OSError):
            if self.cancels or self.stopped_at is None:
                raise
            self.status = KILLED
        if self.moment is not None:
            stopper.join()
        if self.stopped_at is not None and not self.cancels:
            self.server.kill()  # waits for its end, so that the next execution starts another

    def _on_event(self, event: Event) -> None:
        data = event.data
        if event.kind == "executing" and data.get("node") in self.prompt:
            self._enter(NODES.get(self.prompt[data["node"]]["class_type"], self.phase))
        elif event.kind == "unlearn.phase" and data["phase"] in PHASES:
            self._enter(data["phase"])
        elif event.kind == "unlearn.step":
            self.step = data["step"]
        elif event.kind == "unlearn.run" and data["resumed_at"]:
            self.resumed_at = data["resumed_at"]
        elif event.kind == "execution_success":
            self._enter(END)
        elif event.kind == "execution_interrupted":
            self.interrupted_at = time.monotonic()

    def _enter(self, phase: str) -> None:
        _, process = self.server.running()
        self.phase = phase
        self.beginnings.setdefault(phase, cpu_seconds(process))

    def _stop(self, live: LiveServer, process: subprocess.Popen[bytes]) -> None:
        """In a thread: wait for the moment, and stop the execution."""
        assert self.moment is not None
        while self.moment.phase not in self.beginnings and not self.status:
            time.sleep(POLL)
        end = self.beginnings.get(self.moment.phase, 0.0) + self.moment.cpu_seconds
        while cpu_seconds(process) < end and not self.status:
            time.sleep(POLL)
        time.sleep(self.moment.delay)
        if self.status:
            return
        self.stopped_at = time.monotonic()
        if self.cancels:
            live.interrupt()
        else:
            process.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Job:
    """A workflow on a server."""

    server: Server
    prompt: Json

    def stop(self, index: int, moment: Moment) -> Record:
        cancels = index % CANCEL_EVERY == CANCEL_EVERY - 1
        execution = Execution(self.server, self.prompt, moment, cancels)
        execution.run()
        record: Record = {
            "phase": AFTER if execution.phase == END else execution.phase,
            "stop": "Cancel" if cancels else "kill",
            "status": execution.status,
            "resumed_at": execution.resumed_at,
            "step": execution.step,
        }
        if execution.interrupted_at is not None and execution.stopped_at is not None:
            record["seconds"] = round(execution.interrupted_at - execution.stopped_at, 3)
        return record

    def finish(self) -> Record:
        execution = Execution(self.server, self.prompt)
        execution.run()
        failure = "" if execution.status == "success" else execution.status
        resumed_at, step = execution.resumed_at, execution.step
        return {"failure": failure, "resumed_at": resumed_at, "step": step}


def workflow(server: Server, seed: int) -> Json:
    info = server.running()[0].object_info()
    unlearn = {**WIDGETS["UnlearnRestrictedGradient"], "seed": seed}
    widgets = {**WIDGETS, "UnlearnRestrictedGradient": unlearn}
    return as_prompt(with_widgets(read(DEMO), widgets, info), info)


def prepare(comfyui: Path) -> tuple[Json, Reference]:
    """The workflow, and an uninterrupted run of it. Performed once.

    Raises:
        RuntimeError: it fails.
    """
    file = ROOM / "reference.json"
    if not file.exists():
        server = Server(comfyui, ROOM / "reference")
        runs = []
        for seed in (0, EARLIER_SEED):
            execution = Execution(server, workflow(server, seed))
            execution.run()
            if execution.status != "success":
                raise RuntimeError(f"{server.log}: {execution.status}")
            runs.append([execution.prompt, execution.beginnings, server.place.weights()])
        server.kill()
        file.write_text(json.dumps(runs))
    (prompt, beginnings, weights), (_, _, earlier) = json.loads(file.read_text())
    return prompt, Reference(beginnings, weights, earlier)


def chain(number: int, comfyui: Path, prompt: Json, reference: Reference) -> Record:
    server = Server(comfyui, ROOM / f"chain-{number}")
    job = Job(server, prompt)
    earlier = ROOM / "reference" / MODEL, MODEL
    try:
        record = Chain(server.place, earlier, job.stop, job.finish).run(number, reference)
    finally:
        server.kill()
    if not record["last"]["failure"]:
        shutil.rmtree(server.base)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults_server", description=__doc__)
    parser.add_argument("--chains", type=int, default=CHAINS, help="(%(default)s)")
    options = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
    ROOM.mkdir(parents=True, exist_ok=True)
    prompt, reference = prepare(comfyui)
    say(f"CPU seconds: {reference.beginnings}")
    perform(NAME, options.chains, lambda number: chain(number, comfyui, prompt, reference))


if __name__ == "__main__":
    main()
