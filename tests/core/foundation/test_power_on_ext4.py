"""Power failures on a real ext4: a copy of the disk at one moment has only what was flushed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unlearn_core.foundation.atomic import appearing
from unlearn_core.foundation.leftovers import clean_leftovers

SIZE = 16 * 2**20  # bytes of the disk
CONTENT = bytes(range(256)) * 4096  # 1 MiB


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-o", "loop", str(image), str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(SIZE))
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    return image


def after_a_power_failure(image: Path, copy: Path) -> Path:
    shutil.copyfile(image, copy)
    return copy


def save(folder: Path, version: bytes) -> None:
    with appearing(folder) as part:
        part.mkdir()
        (part / "weights").write_bytes(version + CONTENT)
        (part / "config").write_bytes(version)


def test_what_was_saved_is_on_the_disk(image: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "disk") as disk:
        for version in (b"old", b"new"):
            save(disk / "model", version)
            with appearing(disk / "lora.safetensors") as part:
                part.write_bytes(version + CONTENT)
            copy = after_a_power_failure(image, tmp_path / f"{version.decode()}.img")
            with mounted(copy, tmp_path / version.decode()) as recovered:
                clean_leftovers(recovered / "model")
                assert (recovered / "model" / "weights").read_bytes() == version + CONTENT
                assert (recovered / "model" / "config").read_bytes() == version
                assert (recovered / "lora.safetensors").read_bytes() == version + CONTENT
        # The method notices what was not flushed.
        (disk / "unflushed").write_bytes(CONTENT)
        copy = after_a_power_failure(image, tmp_path / "lost.img")
        with mounted(copy, tmp_path / "lost") as recovered:
            lost = recovered / "unflushed"
            assert not lost.exists() or lost.read_bytes() != CONTENT
