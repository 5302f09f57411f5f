"""What survives when the command line is killed: ``python -m benchmarks.faults``.

A chain is one job of the demo model that is killed seven times, at a random moment of each phase,
and started again with the same command until it ends. Every fourth kill is a Ctrl+C (SIGINT), the
others are SIGKILL. Every second chain begins in a folder with the complete result of an earlier
job. After each kill, the files that it left behind are opened; at the end of the chain, its weights
are compared with those of an uninterrupted run, bit for bit. Each chain writes a JSON record into
``benchmarks/results/faults``, and a chain with a record is skipped, so the benchmark can be
interrupted. ``--table`` writes the tables of ``docs/faults.md``, also those of
``benchmarks.faults_server`` and ``benchmarks.faults_power``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu_clock import cpu_seconds, has_ended
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
from benchmarks.faults_table import write
from demo.jobs import EMOJI
from demo.world import BACKGROUNDS, OBJECTS, STYLES
from unlearn_core.job.console import say
from unlearn_core.job.job import RESUME, TENSORS

ROOM = ROOT / ".build" / "faults"
NAME = "command-line"  # of the records
CHAINS = 22
STOP_EVERY = 4  # kills; this one is a Ctrl+C
SETTINGS: dict[str, Any] = {
    "model": str(EMOJI),
    "concept": {"name": "ink", "kind": "style", "replacements": [s for s in STYLES if s != "ink"]},
    "prompts": {
        "templates": ["a {object} in {concept} style on a {background} background"],
        "dimensions": {"object": OBJECTS, "background": BACKGROUNDS},
        "train_count": 96,  # the first edit uses all of them
        "test_count": 4,
    },
    "generation": {"steps": 3},
    "unlearn": {"steps": STEPS, "batch_size": 2, "picture_pairs": 6, "picture_steps": 3},
    "evaluation": {"pictures": 4, "generation": {"steps": 3}},
}
MODEL = "out/model"
RESULTS = (f"out/{TENSORS}", f"{MODEL}/unet/diffusion_pytorch_model.safetensors")
GONE = "gone"  # the end of the process
SECONDS = 900  # after which a run counts as hanging


@dataclass
class Run:
    """A running command line and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def bars(self) -> list[str]:
        """The states of progress bars in the log."""
        pattern = rf"^({'|'.join(PHASES)}) *: .*%\|.*"
        return [line for line in re.split(r"[\r\n]", self.text) if re.match(pattern, line)]

    @property
    def phase(self) -> str:
        """That of the last progress bar; at first, the program is being loaded."""
        bars = self.bars
        return bars[-1].partition(":")[0].strip() if bars else PHASES[0]

    @property
    def step(self) -> int:
        """The last finished step, as far as the log shows it."""
        shown = [re.search(r"(\d+)/\d+", bar) for bar in self.bars if bar.startswith("unlearning")]
        return max((int(match[1]) for match in shown if match), default=0)

    @property
    def resumed_at(self) -> int | None:
        """The step after which it continues; None if it was killed before that, or begins anew."""
        match = re.search(r"Continuing after step (\d+) of", self.text)
        return None if match is None else int(match[1])

    @property
    def is_complete(self) -> bool:
        """Whether it has printed its last line; only the end of the process follows."""
        return "\nResults in " in self.text

    def wait_for(self, moment: Moment) -> None:
        """Wait for a moment, or for the end of the run."""
        while not has_ended(self.process) and self.phase != moment.phase:
            time.sleep(POLL)
        begun = 0.0 if moment.phase == PHASES[0] else cpu_seconds(self.process)
        while (
            not has_ended(self.process) and cpu_seconds(self.process) < begun + moment.cpu_seconds
        ):
            time.sleep(POLL)
        time.sleep(moment.delay)

    def wait(self) -> dict[str, float]:
        """Wait for the end of the process; returns the CPU seconds at the beginning of each phase,
        at the end of the last one, and of the process."""
        begun, beginnings = time.monotonic(), {PHASES[0]: 0.0}
        while not has_ended(self.process):
            phase = END if self.is_complete else self.phase
            if phase not in beginnings:
                beginnings[phase] = cpu_seconds(self.process)
            if time.monotonic() - begun > SECONDS:
                self.process.kill()
            time.sleep(POLL)
        return {**beginnings, GONE: cpu_seconds(self.process)}


@dataclass(frozen=True)
class Job:
    """A job in a folder of its own, with its own cache."""

    room: Path
    seed: int = 0

    @property
    def place(self) -> Place:
        return Place(self.room, ("out", "cache"), RESULTS, MODEL, f"out/{RESUME}")

    def start(self) -> Run:
        settings, log = self.room / "settings.json", self.room / "log.txt"
        content = {**SETTINGS, "unlearn": {**SETTINGS["unlearn"], "seed": self.seed}}
        settings.write_text(json.dumps(content))
        folders = ["--out", str(self.room / "out"), "--cache", str(self.room / "cache")]
        command = [*NICE, sys.executable, "-m", "unlearn_core", "run", str(settings), *folders]
        settled = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **settled}
        with log.open("wb") as sink:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)
        return Run(process, log)

    def stop(self, index: int, moment: Moment) -> Record:
        run = self.start()
        run.wait_for(moment)
        number = signal.SIGINT if index % STOP_EVERY == STOP_EVERY - 1 else signal.SIGKILL
        begun, cpu = time.monotonic(), cpu_seconds(run.process)
        os.kill(run.process.pid, number)  # `send_signal` would poll, and lose the CPU time
        used = run.wait()[GONE] - cpu
        status = run.process.wait()
        return {
            "phase": AFTER if run.is_complete else run.phase,
            "stop": "Ctrl+C" if number == signal.SIGINT else "kill",
            "seconds": round(time.monotonic() - begun, 3),
            "cpu_seconds": round(used, 3),
            "status": status,
            "traceback": "Traceback" in run.text,
            "resumed_at": run.resumed_at,
            "step": run.step,
        }

    def finish(self) -> Record:
        run = self.start()
        run.wait()
        status = run.process.wait()
        failure = f"status {status}: {run.text[-500:]}" if status else ""
        return {"failure": failure, "resumed_at": run.resumed_at, "step": run.step}


def prepare(name: str, seed: int) -> tuple[dict[str, float], dict[str, str]]:
    """An uninterrupted run: its phases and weights. Performed once.

    Raises:
        RuntimeError: it fails.
    """
    job = Job(ROOM / name, seed)
    file = job.room / "run.json"
    if not file.exists():
        shutil.rmtree(job.room, ignore_errors=True)
        job.room.mkdir(parents=True)
        run = job.start()
        beginnings = run.wait()
        if run.process.wait():
            raise RuntimeError(f"{run.log} ends: {run.text[-500:]}")
        file.write_text(json.dumps([beginnings, job.place.weights()]))
    beginnings, weights = json.loads(file.read_text())
    return beginnings, weights


def chain(number: int, reference: Reference) -> Record:
    job = Job(ROOM / f"chain-{number}")
    shutil.rmtree(job.room, ignore_errors=True)
    job.room.mkdir(parents=True)
    stops = Chain(job.place, (ROOM / "earlier" / "out", "out"), job.stop, job.finish)
    record = stops.run(number, reference)
    if not record["last"]["failure"]:
        shutil.rmtree(job.room)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--chains", type=int, default=CHAINS, help="(%(default)s)")
    parser.add_argument(
        "--table", action="store_true", help="write the tables of docs/faults.md, run nothing"
    )
    options = parser.parse_args()
    if options.table:
        write()
        return
    # A shell may ignore Ctrl+C in the background, and the killed runs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    beginnings, weights = prepare("reference", 0)
    _, earlier = prepare("earlier", EARLIER_SEED)
    say(f"CPU seconds: {beginnings}")
    reference = Reference(beginnings, weights, earlier)
    perform(NAME, options.chains, lambda number: chain(number, reference))


if __name__ == "__main__":
    main()
