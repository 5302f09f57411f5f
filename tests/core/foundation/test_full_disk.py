"""Every writer on a real disk that is full or read-only: one clear line, nothing half written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn_core.dataset.cache import LatentCache
from unlearn_core.foundation.atomic import appearing
from unlearn_core.foundation.own_folder import OwnFolder
from unlearn_core.foundation.progress import Progress
from unlearn_core.foundation.safetensors_file import write_tensors

from ..small_disk import SIZE, make_read_only, small_disk

KEY = "0" * 64


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def write_file(destination: Path, size: int) -> None:
    with appearing(destination) as part:
        part.write_bytes(bytes(size))


def write_folder(destination: Path, size: int) -> None:
    with appearing(destination) as part:
        part.mkdir()
        (part / "config.json").write_bytes(b"{}")
        (part / "weights").write_bytes(bytes(size))


def write_with_the_library(destination: Path, size: int) -> None:
    with appearing(destination) as part:
        save_file({"x": torch.zeros(size // 4)}, part)


def write_stream(destination: Path, size: int) -> None:
    with appearing(destination) as part:
        write_tensors(part, {"x": torch.zeros(size // 4)}, lambda _: {})


def write_own(destination: Path, size: int) -> None:
    OwnFolder(destination.parent).write(destination.name, bytes(size))


WRITERS = [write_file, write_folder, write_with_the_library, write_stream, write_own]


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk(disk: Path, write: Callable[[Path, int], None]) -> None:
    write(disk / "new", 1000)
    before = contents(disk)
    for name in ("new", "other"):
        with pytest.raises(OSError, match=f"'{name}' could not be saved .*nothing was") as caught:
            write(disk / name, 2 * SIZE)
        assert f"free some disk space in '{disk}'" in str(caught.value)
        assert "\n" not in str(caught.value)
    changed = {n: c for n, c in contents(disk).items() if n != "unlearn_files.json"}
    assert changed == {n: c for n, c in before.items() if n != "unlearn_files.json"}
    write(disk / "new", 2000)


@pytest.mark.parametrize("write", WRITERS)
def test_a_read_only_disk(disk: Path, write: Callable[[Path, int], None]) -> None:
    write(disk / "new", 1000)
    before = contents(disk)
    make_read_only(disk)
    for path in (disk / "new", disk / "folder" / "other"):
        with pytest.raises(OSError, match="could not be saved .*nothing was written; .*read-only"):
            write(path, 1000)
    assert contents(disk) == before


def test_a_full_or_read_only_cache(disk: Path) -> None:
    class Announcing(Progress):
        def announce(self, sentence: str) -> None:
            announced.append(sentence)

    announced: list[str] = []
    for full in (True, False):
        cache = LatentCache(disk)
        cache.put(KEY, torch.ones(4, 2, 2))
        if full:
            latent = torch.zeros(SIZE)
        else:
            make_read_only(disk)
            latent = torch.zeros(4, 2, 2)
        for _ in range(2):
            cache.put("1" * 64, latent, Announcing())
        (sentence,) = announced
        assert ("free some disk space" if full else "read-only") in sentence
        announced.clear()
        assert [file.name for file in disk.iterdir()] == [f"{KEY}.safetensors"]
        assert cache.get(KEY) is not None
