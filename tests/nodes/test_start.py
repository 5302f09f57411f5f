"""The pack's imports at the start of ComfyUI, which slow down every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .pack import NAME

ROOT = Path(__file__).resolve().parents[2]
# Packages that take long to import, or are needed by only one step.
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
def imported() -> list[list[str]]:
    """The modules of other packages that are imported by the pack, in addition to ComfyUI's, and
    those imported by the nodes' schemas; measured in a separate process."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    modules = json.loads(process.stdout.splitlines()[-1])
    return [[name for name in part if name.partition(".")[0] != NAME] for part in modules]


def test_the_pack_imports_no_heavy_package(imported: list[list[str]]) -> None:
    assert not HEAVY & {name.partition(".")[0] for name in imported[0]}


def test_the_pack_imports_few_modules(imported: list[list[str]]) -> None:
    assert len(imported[0]) <= MOST, "\n".join(imported[0])


def test_the_schemas_import_nothing(imported: list[list[str]]) -> None:
    assert imported[1] == []
