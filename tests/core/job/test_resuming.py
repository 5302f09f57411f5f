"""A stopped job continues, and only a complete result replaces an earlier one."""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unlearn_core.foundation import memory
from unlearn_core.foundation.progress import Progress
from unlearn_core.foundation.signals import StopSignal, deferred, like_ctrl_c
from unlearn_core.job import job
from unlearn_core.job.cli import main
from unlearn_core.job.resumption import ASSUMED_SPEED, INTERVAL, SHARE, Resumption
from unlearn_core.saving import resume
from unlearn_core.saving.resume import stored_steps
from unlearn_core.unlearning import fitting
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import StepReport
from unlearn_core.unlearning.snapshot import Snapshot

ROOT = Path(__file__).parents[3]
STATE, RESULT, REPORT = "resume.safetensors", "unlearned.safetensors", "report.json"


@pytest.fixture
def settings(sd_folder: Path, tmp_path: Path) -> Path:
    """A settings file for a run of 5 steps."""
    content = {
        "model": str(sd_folder),
        "concept": {"name": "ink", "kind": "style", "replacements": ["noto"]},
        "prompts": {
            "templates": ["a {object} in {concept} style"],
            "dimensions": {"object": ["cat", "dog", "house", "tree"]},
            "train_count": 2,
            "test_count": 2,
        },
        "generation": {"steps": 2},
        "unlearn": {"steps": 5, "batch_size": 2, "learning_rate": 1e-3},
        "evaluation": {"pictures": 1, "generation": {"steps": 1}},
    }
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def arguments(stage: str, settings: Path, out: str = "out") -> list[str]:
    folder = settings.parent
    return [stage, str(settings), "--out", str(folder / out), "--cache", str(folder / "cache")]


def run(stage: str, settings: Path, *more: str, out: str = "out") -> int:
    return main([*arguments(stage, settings, out), *more])


def change(settings: Path, section: str = "unlearn", **fields: object) -> None:
    content = json.loads(settings.read_text())
    content.setdefault(section, {}).update(fields)
    settings.write_text(json.dumps(content))


def failing(monkeypatch: pytest.MonkeyPatch, after: int, fail: Callable[[], Any]) -> None:
    """Calls ``fail`` instead of the step that follows ``after`` finished ones."""
    step = Unlearning._step

    def fails(self: Unlearning) -> StepReport:
        if len(self.reports) == after:
            fail()
        return step(self)

    monkeypatch.setattr(Unlearning, "_step", fails)


def interrupt() -> None:
    raise KeyboardInterrupt


def kill_by(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def assert_same_weights(left: Path, right: Path) -> None:
    one, other = load_file(left / RESULT), load_file(right / RESULT)
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """The tests may themselves run in the background or under ``nohup``, where signals are
    ignored."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("fail", "status"),
    [
        (interrupt, 130),
        (kill_by(signal.SIGTERM), 143),
        (kill_by(signal.SIGHUP), 129),
        (raising(torch.OutOfMemoryError("CUDA out of memory")), 2),
    ],
)
def test_the_same_command_continues_and_reaches_the_same_weights(
    settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fail: Callable[[], Any],
    status: int,
) -> None:
    out = settings.parent / "out"
    with monkeypatch.context() as patched:
        failing(patched, 3, fail)
        assert run("unlearn", settings) == status
    assert {file.name for file in out.glob("[!.]*")} == {STATE}
    assert f"step 3 is stored in {out / STATE}" in capsys.readouterr().err
    assert run("unlearn", settings) == 0
    assert "Continuing after step 3 of 5." in capsys.readouterr().err
    assert not (out / STATE).exists()
    assert run("unlearn", settings, out="whole") == 0
    assert_same_weights(out, settings.parent / "whole")


def test_a_killed_process_continues(settings: Path) -> None:
    """Killed after the first state, at once and without a signal handler."""
    change(settings, steps=60)
    state = settings.parent / "out" / STATE
    command = [sys.executable, "-m", "unlearn_core", *arguments("unlearn", settings)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not state.exists():
        assert process.poll() is None, "the run ended without a state"
        time.sleep(0.01)
    process.kill()
    process.wait()
    steps = stored_steps(state)
    assert steps is not None
    assert 0 < len(steps) < 60
    assert run("unlearn", settings) == 0
    assert run("unlearn", settings, out="whole") == 0
    assert_same_weights(settings.parent / "out", settings.parent / "whole")


@pytest.mark.parametrize("module", ["unlearn_core", "demo"])
def test_ctrl_c_while_torch_is_imported(module: str, tmp_path: Path) -> None:
    """Ctrl+C comes with the first import of torch; a module in its place shows when that is."""
    press = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"
    (tmp_path / "torch.py").write_text(press)
    ended = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "stopped\n")


def test_an_earlier_result_stays_until_the_new_one_is_complete(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = settings.parent / "out"
    assert run("run", settings) == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    change(settings, seed=1)
    with monkeypatch.context() as patched:
        failing(patched, 2, interrupt)
        assert run("run", settings) == 130
    assert "the unlearned model of the last complete run" in capsys.readouterr().err
    after = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert after.pop(out / STATE)
    assert after == before

    # A full disk at the very end.
    with monkeypatch.context() as patched:
        patched.setattr("unlearn_core.saving.run_state.save_file", raising_any(OSError("full")))
        assert run("run", settings) == 2
    error = capsys.readouterr().err
    assert "could not be saved (full)" in error
    assert "step 5 is stored" in error
    assert {file: file.read_bytes() for file in before} == before

    with monkeypatch.context() as patched:
        failing(patched, 5, interrupt)  # no further step is needed
        assert run("run", settings) == 0
    assert not (out / STATE).exists()
    assert (out / RESULT).read_bytes() != before[out / RESULT]
    assert json.loads((out / REPORT).read_text())["resumed_at"] == 5


def raising_any(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_run_that_was_stopped_in_its_evaluation_takes_no_step_again(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = settings.parent / "out"
    with monkeypatch.context() as patched:
        patched.setattr(job, "evaluate", raising_any(KeyboardInterrupt()))
        assert run("run", settings) == 130
    assert "the unlearned model is stored in" in capsys.readouterr().err
    weights = load_file(out / RESULT)
    with monkeypatch.context() as patched:
        patched.setattr(Unlearning, "_step", raising_any(AssertionError("a step is repeated")))
        assert run("run", settings) == 0
    assert load_file(out / RESULT).keys() == weights.keys()
    assert all(torch.equal(load_file(out / RESULT)[name], weights[name]) for name in weights)
    assert (out / REPORT).exists()
    assert not (out / STATE).exists()


def test_a_stopped_run_of_other_settings_is_never_continued(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = settings.parent / "out"
    with monkeypatch.context() as patched:
        failing(patched, 2, interrupt)
        assert run("unlearn", settings) == 130
    stored = (out / STATE).read_bytes()
    change(settings, learning_rate=2e-3)
    assert run("unlearn", settings) == 2
    error = capsys.readouterr().err
    assert "unlearn (learning_rate was 0.001, now 0.002)" in error
    assert "begin anew with --restart, or choose another folder" in error
    assert (out / STATE).read_bytes() == stored
    assert run("unlearn", settings, "--restart") == 0
    assert not (out / STATE).exists()
    assert run("unlearn", settings, out="whole") == 0
    assert_same_weights(out, settings.parent / "whole")

    (out / STATE).write_bytes(stored[:-5])
    assert run("unlearn", settings) == 2
    assert "'resume.safetensors' is damaged" in capsys.readouterr().err
    (out / STATE).write_bytes(b"something else of the user")
    assert run("unlearn", settings, "--restart") == 2
    assert "is not the state of a run, so it is not replaced" in capsys.readouterr().err
    assert (out / STATE).read_bytes() == b"something else of the user"


@pytest.mark.parametrize(("before", "now"), [(0, 2), (2, 0)])
def test_a_stopped_run_of_another_clip_skip_is_never_continued(
    settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: int,
    now: int,
) -> None:
    change(settings, "loading", clip_skip=before)
    with monkeypatch.context() as patched:
        failing(patched, 2, interrupt)
        assert run("unlearn", settings) == 130
    stored = (settings.parent / "out" / STATE).read_bytes()
    change(settings, "loading", clip_skip=now)
    assert run("unlearn", settings) == 2
    assert f"clip_skip (was {before}, now {now})" in capsys.readouterr().err
    assert (settings.parent / "out" / STATE).read_bytes() == stored


def test_the_steps_of_a_stopped_run_become_the_result_on_request(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = settings.parent / "out"
    assert run("unlearn", settings, "--partial") == 2
    assert "partial: there is no stopped run" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        failing(patched, 2, interrupt)
        assert run("run", settings) == 130
        assert run("run", settings, "--partial") == 0, "it takes no further step"
    assert len(json.loads((out / REPORT).read_text())["steps"]) == 2
    assert "stopped after 2 of 5 steps" in capsys.readouterr().err
    assert run("run", settings) == 0, "it can still be continued"
    assert json.loads((out / REPORT).read_text())["resumed_at"] == 2
    assert run("unlearn", settings, out="whole") == 0
    assert_same_weights(out, settings.parent / "whole")


def test_a_full_disk_does_not_end_the_run(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resume, "raw_bytes", raising_any(OSError("No space left")))
    monkeypatch.setattr("unlearn_core.job.resumption.SHARE", 100.0)
    assert run("unlearn", settings) == 0
    assert capsys.readouterr().err.count("could not be stored") == 1
    assert (settings.parent / "out" / RESULT).exists()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StubRun(Unlearning):
    """A run of 1000 steps with a state of this size."""

    def __init__(self, size: int) -> None:
        self.reports: list[StepReport] = []
        self.whole, self.size = True, size

    def __len__(self) -> int:
        return 1000

    def snapshot(self) -> Snapshot:
        tensor = torch.zeros((), dtype=torch.uint8).expand(self.size)
        return Snapshot({"weights": tensor}, {"reports": self.reports})


@pytest.mark.parametrize(
    ("step_seconds", "write_seconds", "least", "most"),
    [
        (1.0, 0.1, 30, 34),  # every 30 seconds
        (0.01, 0.0, 10, 10),  # every tenth of the steps
        (1.0, 10.0, 2, 3),  # 3 % of 1000 seconds
        (0.01, 10.0, 0, 0),  # a run of 10 seconds
    ],
)
def test_states_are_written_often_but_cost_little(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step_seconds: float,
    write_seconds: float,
    least: int,
    most: int,
) -> None:
    clock, writes = Clock(), 0

    def write(*_: object) -> None:
        nonlocal writes
        writes += 1
        clock.now += write_seconds

    monkeypatch.setattr("unlearn_core.job.resumption.write_state", write)
    monkeypatch.setattr(Snapshot, "is_finite", True)
    size = int(write_seconds * ASSUMED_SPEED)
    resumption, stub = Resumption(tmp_path / "state", {}, Progress(), clock=clock), StubRun(size)
    for i in range(1000):
        clock.now += step_seconds
        stub.reports.append({"step": i + 1, "seconds": 1.0})  # type: ignore[arg-type]
        resumption.after_step(stub)
    assert least <= writes <= most
    assert writes * write_seconds <= SHARE * clock.now + 1e-9
    assert INTERVAL == 30


def test_signals_wait_for_the_end_of_a_deferred_part() -> None:
    done = False

    def part() -> None:
        nonlocal done
        with like_ctrl_c(), deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            done = True

    with pytest.raises(StopSignal):
        part()
    assert done
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    """As under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_end_of_the_process_does_not_wait_for_a_garbage_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes two seconds with all libraries, in which Ctrl+C has no visible effect."""
    freezes: list[bool] = []
    monkeypatch.setattr("unlearn_core.job.cli.main", lambda: 130)
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append(True))
    with pytest.raises(SystemExit, match="130"):
        runpy.run_module("unlearn_core", run_name="__main__")
    assert freezes == [True]


def test_a_run_keeps_the_scope_that_was_chosen_for_the_memory(
    settings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is continued and evaluated with this scope, although the default one fits by then."""
    monkeypatch.setattr(fitting, "FULL_SIZE", 1)
    little = tmp_path / "meminfo"
    little.write_text("MemAvailable: 1 kB\n", encoding="ascii")
    with monkeypatch.context() as patched:
        patched.setattr(memory, "MAIN_MEMORY", little)
        failing(patched, 3, interrupt)
        assert run("unlearn", settings) == 130
    sentence = "Scope 'lora, cross-attention', because 'xattn' needs more than there is."
    assert sentence in capsys.readouterr().err
    assert run("unlearn", settings) == 0
    assert "Continuing after step 3 of 5." in capsys.readouterr().err
    assert run("evaluate", settings) == 0
    report = json.loads((settings.parent / "out" / REPORT).read_text(encoding="utf-8"))
    plan = report["cost"]["memory_plan"]
    assert report["settings"]["scope"] == plan["scope"] == "lora, cross-attention"
    assert plan["too_large"] == "xattn"
