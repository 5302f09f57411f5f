"""Jobs of two processes: the results of one process, files and messages once, and accidents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from unlearn_core.foundation.processes import ALONE, Processes, launched
from unlearn_core.foundation.progress import Progress
from unlearn_core.job.cli import main
from unlearn_core.saving.resume import stored_steps

ROOT = Path(__file__).resolve().parents[3]
RUNNER = Path(__file__).with_name("shared_jobs.py")
LAUNCHER = (sys.executable, "-m", "accelerate.commands.launch")
TIMEOUT = 600  # seconds

CONTENT: dict[str, Any] = {
    "concept": {"name": "ink", "kind": "style", "replacements": ["noto", "pixel"]},
    "prompts": {
        "templates": ["a {object} in {concept} style"],
        "dimensions": {"object": ["cat", "dog", "house", "tree"]},
        "train_count": 5,
        "test_count": 2,
    },
    "generation": {"steps": 2, "batch_size": 2},
    "evaluation": {"pictures": 3, "generation": {"steps": 2, "seed": 99}},
}
UNLEARN: dict[str, Any] = {
    "steps": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "picture_steps": 2,
    "warm_start": False,
}
PAUSE = 1.08
STOP_ABOVE = {
    "objective": "ascent, stop above",
    "retain_objective": "denoise",
    "scope": "full",
    "truncation": PAUSE,
}
# The changes of ``UNLEARN``. The mean error of a batch is near ``PAUSE``: the ascent pauses in some
# steps.
SAME_RESULT: dict[str, dict[str, Any]] = {
    "redirect": {},
    "odd batch": {"batch_size": 3, "warm_start": True},
    "one row": {"batch_size": 1},
    "stop above": STOP_ABOVE,
    "stop above, odd batch": {**STOP_ABOVE, "batch_size": 3},
    "whole retain set": {"retain_batch_factor": 0, "retain_ema": 0.5, "batch_size": 3},
    "several retain batches": {"retain_batch_factor": 3, "empty_share": 0.5, "batch_size": 3},
    "SalUn": {"objective": "random label (SalUn)", "saliency": 0.5, "batch_size": 3},
    "lora": {"scope": "lora", "batch_size": 3},
    "UCE": {"method": "UCE (closed form)"},
}
EVALUATED = "redirect"  # the job that also evaluates and saves
FAILURES = {"within a step": 1, "between two steps": 2}  # accident -> finished steps
INTERRUPTS = ("interrupt", "interrupt during an exchange")
ACCIDENTS = (*FAILURES, *INTERRUPTS)
MISTAKE = "mistake"


class Jobs:
    """The folders of all jobs, and what two processes have returned and printed."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.names = [*SAME_RESULT, *ACCIDENTS, MISTAKE]
        jobs = [
            {
                "arguments": self.arguments(name, "two"),
                "accident": name if name in ACCIDENTS else "",
            }
            for name in self.names
        ]
        (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        options = ("--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no")
        port = "--main_process_port=0"  # any free port
        done = subprocess.run(
            [*LAUNCHER, *options, "--dynamo_backend=no", port, RUNNER, folder / "jobs.json"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        self.stdout, self.stderr = done.stdout, done.stderr
        self.codes = [
            dict(
                zip(
                    self.names, json.loads((folder / f"codes-{rank}.json").read_text()), strict=True
                )
            )
            for rank in range(2)
        ]

    def arguments(self, name: str, processes: str) -> list[str]:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        content = {
            "model": str(self.model),
            **CONTENT,
            "unlearn": {**UNLEARN, **SAME_RESULT.get(name, {})},
        }
        if name == MISTAKE:
            content["unlearn"]["steps"] = -1
        file = folder / "settings.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        stage = "run" if name == EVALUATED else "unlearn"
        cache = self.folder / f"cache-{processes}"
        return [stage, str(file), "--device=cpu", f"--out={folder / processes}", f"--cache={cache}"]

    def weights(self, name: str, processes: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / processes / "unlearned.safetensors")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, sd_folder: Path) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("processes"), sd_folder)


def without_times(value: Any) -> Any:
    """A report without what differs between two runs of one job."""
    if isinstance(value, dict):
        measured = ("seconds", "peak_bytes", "durations")
        return {k: without_times(v) for k, v in value.items() if k not in measured}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def assert_close(actual: Any, expected: Any) -> None:
    """Equal in structure and, to rounding, in every number."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_close(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5)
    else:
        assert actual == expected


@pytest.mark.parametrize("name", SAME_RESULT)
def test_two_processes_give_the_weights_of_one(jobs: Jobs, name: str) -> None:
    assert main(jobs.arguments(name, "one")) == 0
    assert [codes[name] for codes in jobs.codes] == [0, 0]
    one, two = jobs.weights(name, "one"), jobs.weights(name, "two")
    assert one.keys() == two.keys() != set()
    # The steps change the weights by 0.3 and more. Adam turns the rounding of a gradient near zero
    # into a part of its step.
    difference = torch.cat([(two[key] - one[key]).flatten() for key in one])
    assert difference.norm() < 1e-3


@pytest.mark.parametrize("name", ["stop above", "stop above, odd batch"])
def test_the_ascent_pauses_by_the_mean_error_of_all_rows(jobs: Jobs, name: str) -> None:
    steps = reports(jobs, name)
    pauses = [step["grad_forget_norm"] == 0 for step in steps]
    assert pauses == [-step["forget_loss"] > PAUSE for step in steps]
    assert set(pauses) == {True, False}


def test_the_figures_of_the_report_are_equal(jobs: Jobs) -> None:
    if not (jobs.folder / EVALUATED / "one").exists():
        assert main(jobs.arguments(EVALUATED, "one")) == 0
    one, two = (
        json.loads((jobs.folder / EVALUATED / processes / "report.json").read_text())
        for processes in ("one", "two")
    )
    assert_close(without_times(two), without_times(one))
    assert one["cost"]["denoiser_passes"]["unlearning"] > 0


def test_both_processes_fill_one_cache(jobs: Jobs) -> None:
    if not (jobs.folder / EVALUATED / "one").exists():
        assert main(jobs.arguments(EVALUATED, "one")) == 0
    files = {file.name for file in (jobs.folder / "cache-two").iterdir()}
    assert {file.name for file in (jobs.folder / "cache-one").iterdir()} <= files
    assert all(name.endswith(".safetensors") for name in files)


def test_only_the_main_process_prints(jobs: Jobs) -> None:
    for name, code in jobs.codes[0].items():
        expected = 1 if code == 0 else 0
        assert jobs.stdout.count(f"Results in {jobs.folder / name / 'two'} ") == expected
    drawing = [name for name in jobs.names if name not in ("UCE", MISTAKE)]
    assert jobs.stderr.count("making images   :   0%") == len(drawing)


def test_a_mistake_in_the_settings_is_reported_once(jobs: Jobs) -> None:
    assert [codes[MISTAKE] for codes in jobs.codes] == [2, 2]
    assert jobs.stderr.count("steps must be") == 1


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_one_process_ends_all_and_keeps_the_steps(jobs: Jobs, name: str) -> None:
    assert [codes[name] for codes in jobs.codes] == [2, 2]
    assert jobs.stderr.count("error in process 1: disk full") == 2  # once for each of the two jobs
    assert jobs.stderr.count("error: another process of this run failed") == 2
    assert len(stored(jobs, name)) == FAILURES[name]


@pytest.mark.parametrize("name", INTERRUPTS)
def test_ctrl_c_ends_all_processes_and_keeps_the_steps(jobs: Jobs, name: str) -> None:
    assert [codes[name] for codes in jobs.codes] == [130, 2]
    assert f"stopped\nstep 1 is stored in {jobs.folder / name / 'two'}" in jobs.stderr
    assert len(stored(jobs, name)) == 1


def stored(jobs: Jobs, name: str) -> list[Any]:
    """The steps of a stopped job of two processes."""
    steps = stored_steps(jobs.folder / name / "two" / "resume.safetensors")
    assert steps is not None
    return steps


def reports(jobs: Jobs, name: str) -> list[Any]:
    """The steps of a job of two processes."""
    with safe_open(jobs.folder / name / "two" / "unlearned.safetensors", "pt") as opened:
        return json.loads(opened.metadata()["steps"])


def test_the_shares_of_all_processes_are_all_rows() -> None:
    for count in range(1, 6):
        for total in range(12):
            shares = [range(total)[Processes(rank, count).share(total)] for rank in range(count)]
            assert [row for share in shares for row in share] == list(range(total))
            lengths = list(map(len, shares))
            assert max(lengths) - min(lengths) <= 1
            assert not total or lengths[0] > 0


def test_each_process_takes_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ALONE.use_device("cuda:1") == "cuda:1"
    second = Processes(3, 4, local_rank=1)
    assert second.use_device("cpu") == "cpu"
    assert second.use_device("xpu") == "xpu:1"
    with pytest.raises(ValueError, match=r"device must not be numbered.*'cuda:0'.*write 'cuda'"):
        second.use_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"process 3 has no GPU of its own.*this machine has 1;"):
        second.use_device("cuda")


def test_a_process_alone_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert launched() is ALONE
    results = ALONE.divided(5, 2, lambda rows: torch.tensor(list(rows)), Progress())
    assert [part.tolist() for _, part in results] == [[0, 1], [2, 3], [4]]
    monkeypatch.setenv("WORLD_SIZE", "4")  # set by a cluster's scheduler, without a launcher
    assert launched() is ALONE
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert launched() == Processes(3, 4, 1)
