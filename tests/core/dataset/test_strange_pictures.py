"""Pictures and captions from strangers: nothing hangs, and nothing fills the memory."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from unlearn_core.dataset.own_pictures import LARGEST_CAPTION, left_out, read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    return folder


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def bomb(width: int, height: int) -> bytes:
    """A small PNG with 8 bits per pixel that unpacks to ``width * height`` bytes."""
    packer, row = zlib.compressobj(9), bytes(width + 1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def test_a_picture_that_unpacks_to_gigabytes(folder: Path) -> None:
    (folder / "b.png").write_bytes(bomb(12_000, 11_000))
    assert (folder / "b.png").stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="'b.png' .*132,000,000 pixels; the limit is 120,000,000"):
        read_folder(folder, "a cat", True)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
@pytest.mark.parametrize("name", ["b.png", "a.txt", "b.jpg"])
def test_a_pipe_is_never_read(folder: Path, name: str) -> None:
    """As a caption it counts as none; as a picture it is left out."""
    os.mkfifo(folder / name)
    assert read_folder(folder, "a cat", True).captions == ("a cat",)
    assert name == "a.txt" or name in left_out(folder)


def test_a_folder_named_like_a_picture(folder: Path) -> None:
    (folder / "b.png").mkdir()
    assert read_folder(folder, "a cat", True).captions == ("a cat",)
    assert "b.png" in left_out(folder)


def test_a_caption_that_is_a_link_to_another_file(folder: Path, tmp_path: Path) -> None:
    """Its text would appear in the report and in the saved model."""
    (tmp_path / "secret").write_text("a secret", encoding="utf-8")
    os.symlink(tmp_path / "secret", folder / "a.txt")
    with pytest.raises(ValueError, match="'a.txt' .*a link to a place outside the folder"):
        read_folder(folder, "", True)
    (folder / "a.txt").unlink()
    (folder / "shared").write_text("a cat", encoding="utf-8")
    os.symlink("shared", folder / "a.txt")
    assert read_folder(folder, "", True).captions == ("a cat",)


def test_a_picture_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    os.symlink(tmp_path / "elsewhere.png", folder / "b.png")
    assert len(read_folder(folder, "a cat", True).images) == 2


def test_a_caption_beyond_the_limit(folder: Path) -> None:
    (folder / "a.txt").write_text("a" * (LARGEST_CAPTION + 1), encoding="utf-8")
    with pytest.raises(ValueError, match="'a.txt' .*100,001 bytes; the limit is 100,000"):
        read_folder(folder, "", True)
