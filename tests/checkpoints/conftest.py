"""A checkpoint of each family, written by ComfyUI's own modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from other_loader import ComfySide, find_comfyui


@pytest.fixture(scope="session")
def comfy_side() -> ComfySide:
    return find_comfyui()


@pytest.fixture(scope="module", params=["sd1", "sd2-v", "sdxl", "sd1-ema"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(
    family: str, comfy_side: ComfySide, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Random weights in the original layout; gigabytes, so deleted as soon as may be."""
    file = tmp_path_factory.mktemp(family) / f"{family}.safetensors"
    comfy_side.run("make", family, str(file), "1")
    yield file
    file.unlink()
