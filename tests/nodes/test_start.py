"""What the pack adds to the start of ComfyUI: imports, which every start pays for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .pack import NAME

ROOT = Path(__file__).resolve().parents[2]
# What takes long to import, or is needed by one step alone.
HEAVY = {
    "accelerate",
    "diffusers",
    "matplotlib",
    "nudenet",
    "onnxruntime",
    "open_clip",
    "peft",
    "safetensors",
    "scipy",
    "tokenizers",
    "torchvision",
    "transformers",
}
MOST = 10  # modules of other packages; diffusers alone is hundreds
SCRIPT = """
import json
from tests.nodes.pack import OF_COMFYUI, WITH_PACK, WITH_SCHEMAS
print(json.dumps([sorted(WITH_PACK - OF_COMFYUI), sorted(WITH_SCHEMAS - WITH_PACK)]))
"""


@pytest.fixture(scope="module")
def brought() -> list[list[str]]:
    """The modules that the import of the pack brings in, beyond ComfyUI's and its own, and those
    that the nodes' schemas bring, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    return [[name for name in part if name.partition(".")[0] != NAME] for part in modules]


def test_the_import_brings_in_no_heavy_package(brought: list[list[str]]) -> None:
    assert not HEAVY & {name.partition(".")[0] for name in brought[0]}


def test_the_import_brings_in_few_modules(brought: list[list[str]]) -> None:
    assert len(brought[0]) <= MOST, "\n".join(brought[0])


def test_the_schemas_bring_in_none(brought: list[list[str]]) -> None:
    assert brought[1] == []
