"""The oldest versions that our requirements allow can run a complete job: an installed ComfyUI
rarely has the newest ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import run
from unlearn_core.models.load import load_model

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "models" / "emoji-canvas"
PROBES = """
import sys
from pathlib import Path
from unlearn_core.judging.evaluators import find_evaluators, find_scorer
from unlearn_core.job.job import Job
from unlearn_core.judging.probes import PROBES, run_probe
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.judging.settings import ProbeSettings
from unlearn_core.job.settings_file import read_settings

unlearned = Job(read_settings(sys.argv[1]), Path(sys.argv[2])).unlearned()
judges = find_evaluators(unlearned.base, unlearned.pairs, find_scorer(unlearned.base))
few = ProbeSettings(pictures=2, examples=2, steps=2, generation=GenerationSettings(steps=2))
for name in PROBES:
    print(name, run_probe(name, unlearned, judges, few).after)
"""
COMPANIONS = ("tokenizers==0.21.*", "huggingface_hub==0.34.*")  # required by those versions


def lowest_pins() -> list[str]:
    """The lower bounds of the pack and its command line. Without torch, as its oldest version may
    not exist for this Python."""
    bound = re.compile(r"([\w.-]+)>=(\S+)")
    matches = [bound.fullmatch(line) for line in run.command_line_requirements()]
    return [f"{match[1]}=={match[2]}.*" for match in matches if match and match[1] != "torch"]


def test_the_pins_cover_every_lower_bound() -> None:
    names = {pin.partition("==")[0] for pin in lowest_pins()}
    assert names == {"diffusers", "open_clip_torch", "peft", "transformers", "safetensors"}


@pytest.fixture(scope="module")
def oldest() -> Path:
    """A folder with the oldest versions, first in Python's search path. Installed once for each
    set of versions."""
    pins = [*lowest_pins(), *COMPANIONS]
    digest = hashlib.sha256(json.dumps([pins, sys.version]).encode()).hexdigest()
    folder = ROOT / ".build" / "oldest" / digest[:12]
    if not folder.exists():
        part = folder.with_suffix(".part")  # an incomplete folder must not look complete
        shutil.rmtree(folder.parent, ignore_errors=True)
        options = ["-q", "--no-deps", "--no-compile", "--target", str(part)]
        command = [sys.executable, "-m", "pip", "install", *options, *pins]
        subprocess.run(command, check=True)
        part.rename(folder)
    return folder


def run_python(oldest: Path, *arguments: str) -> str:
    """Run Python with the oldest versions and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(oldest), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_complete_job_on_the_oldest_versions(oldest: Path, tmp_path: Path) -> None:
    settings = {
        "model": str(DEMO),
        "concept": {"name": "ink", "replacements": ["noto"]},
        "prompts": {
            "templates": ["a {object} in {concept} style"],
            "dimensions": {"object": ["cat", "dog", "fish", "bird"]},
            "train_count": 2,
            "test_count": 2,
        },
        "generation": {"steps": 2},
        "unlearn": {"steps": 2, "batch_size": 2, "scope": "lora"},
        "evaluation": {"pictures": 2},
    }
    file, out = tmp_path / "settings.json", tmp_path / "out"
    file.write_text(json.dumps(settings), encoding="utf-8")
    folders = ["--out", str(out), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    run_python(oldest, "-m", "unlearn_core", "run", str(file), *folders)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["missing"] == []
    assert report["after"]["alignment"]["forget"] is not None
    lines = run_python(oldest, "-c", PROBES, str(file), str(out)).splitlines()
    assert len(lines) == 5
    assert not any(line.endswith("None") for line in lines)
    assert load_model(out / "model").info.family == "stable-diffusion"
