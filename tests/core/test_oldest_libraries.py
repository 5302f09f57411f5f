"""The oldest versions that requirements.txt allows do the whole job: what a ComfyUI has installed
is seldom the newest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_core.models.load import load_model

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "models" / "emoji-canvas"
NAMES = ("transformers", "diffusers", "peft", "open_clip_torch")
COMPANIONS = ("tokenizers==0.21.*", "huggingface_hub==0.34.*")  # that those versions ask for


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the oldest versions, in which Python looks before its own."""
    folder = tmp_path_factory.mktemp("oldest")
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = [re.search(rf"^{name}>=(.+)$", text, re.MULTILINE) for name in NAMES]
    pins = [f"{name}=={match[1]}.*" for name, match in zip(NAMES, found, strict=True) if match]
    assert len(pins) == len(NAMES)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, *pins, *COMPANIONS], check=True)
    return folder


def test_the_whole_job_on_the_oldest_versions(oldest: Path, tmp_path: Path) -> None:
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
        "evaluation": {"pictures": 2, "probes": "all"},
    }
    file, out = tmp_path / "settings.json", tmp_path / "out"
    file.write_text(json.dumps(settings), encoding="utf-8")
    places = ["--out", str(out), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "unlearn_core", "run", str(file), *places],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(oldest), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["missing"] == []
    assert report["after"]["alignment"]["forget"] is not None
    assert len(report["probes"]) == 5
    assert load_model(out / "model").info.family == "stable-diffusion"
