"""A checkpoint of each family, written by ComfyUI's own modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from other_loader import ComfySide, running_comfy_side


@pytest.fixture(scope="session")
def comfy_side() -> Iterator[ComfySide]:
    with running_comfy_side() as side:
        yield side


@pytest.fixture(scope="module", params=["sd2-v", "sdxl", "sd1-ema"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(
    family: str, comfy_side: ComfySide, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Random weights in the original layout; several gigabytes, so deleted early."""
    file = tmp_path_factory.mktemp(family) / f"{family}.safetensors"
    comfy_side.make(family, file)
    yield file
    file.unlink()
