"""The picture cache: damage is noticed, its size is limited, and only its own files are deleted."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn_core.dataset.cache import LARGEST_FILE, LIMIT_FILE, CacheSize, LatentCache

KEYS = [f"{i:064x}" for i in range(4)]
LATENT = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "cache")


def file_of(cache: LatentCache, key: str) -> Path:
    return cache.folder / f"{key}.safetensors"


def test_a_stored_picture_is_read_again(cache: LatentCache) -> None:
    assert cache.get(KEYS[0]) is None
    cache.put(KEYS[0], LATENT)
    latent = cache.get(KEYS[0])
    assert latent is not None
    assert torch.equal(latent, LATENT)


def test_every_damaged_file_is_noticed(cache: LatentCache) -> None:
    """4000 random damages: flipped bits, overwritten stretches, lost ends."""
    cache.put(KEYS[0], LATENT)
    file = file_of(cache, KEYS[0])
    content, chance = file.read_bytes(), random.Random(0)
    for i in range(4000):
        damaged = bytearray(content)
        place = chance.randrange(len(content))
        if i % 3 == 0:
            damaged[place] ^= 1 << chance.randrange(8)
        elif i % 3 == 1:
            damaged[place : place + 64] = bytes(64)
        else:
            del damaged[place:]
        file.write_bytes(damaged)
        latent = cache.get(KEYS[0])
        # In the padding of the header, damage changes nothing.
        assert latent is None or torch.equal(latent, LATENT), damaged


def test_a_file_under_another_name_is_not_used(cache: LatentCache) -> None:
    cache.put(KEYS[0], LATENT)
    file_of(cache, KEYS[0]).rename(file_of(cache, KEYS[1]))
    assert cache.get(KEYS[1]) is None


def test_a_file_beyond_the_limits_is_not_read(cache: LatentCache) -> None:
    cache.put(KEYS[0], LATENT)
    file = file_of(cache, KEYS[0])
    with file.open("r+b") as stream:
        stream.truncate(LARGEST_FILE + 1)  # sparse: it takes no space on the disk
    assert cache.get(KEYS[0]) is None
    header = b"{" + b'"a":{' * 100_000
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    assert cache.get(KEYS[0]) is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(file_of(cache, KEYS[1]))
        assert cache.get(KEYS[1]) is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_picture_that_is_not_finite_is_not_used(cache: LatentCache, value: float) -> None:
    latent = LATENT.clone()
    latent[0, 0, 0] = value
    cache.put(KEYS[0], latent)
    assert cache.get(KEYS[0]) is None
    save_file({"latent": latent}, file_of(cache, KEYS[1]))  # of an earlier version
    assert cache.get(KEYS[1]) is None


def test_a_file_of_an_earlier_version_is_used_and_gets_a_checksum(cache: LatentCache) -> None:
    cache.folder.mkdir()
    file = file_of(cache, KEYS[0])
    save_file({"latent": LATENT}, file)
    for _ in range(2):
        latent = cache.get(KEYS[0])
        assert latent is not None
        assert torch.equal(latent, LATENT)
    assert b"sha256" in file.read_bytes()


def test_the_oldest_files_are_deleted_first_and_no_others(cache: LatentCache) -> None:
    for age, key in enumerate(KEYS):
        cache.put(key, LATENT)
        then = time.time() - 100 + age
        os.utime(file_of(cache, key), (then, then))
    assert cache.get(KEYS[0]) is not None  # used again
    others = [cache.folder / "mine.safetensors", cache.folder / f"{KEYS[0]}.txt"]
    for other in others:
        other.write_bytes(bytes(10**5))
    size = cache.size().size
    LatentCache(cache.folder, size).trim()
    assert cache.size().pictures == 4
    LatentCache(cache.folder, size // 2).trim()
    assert cache.size() == CacheSize(2, size // 2)
    assert cache.get(KEYS[0]) is not None
    assert cache.get(KEYS[3]) is not None
    assert all(other.exists() for other in others)
    assert cache.clear() == CacheSize(0, 0)
    assert all(other.exists() for other in others)


def test_left_overs_of_killed_processes_are_deleted(cache: LatentCache) -> None:
    cache.put(KEYS[0], LATENT)
    for name in ("unlearn-new.part", "unlearn-old.part", "mine.part"):
        (cache.folder / name).touch()
    before = time.time() - 2 * 60 * 60
    for name in ("unlearn-old.part", "mine.part"):
        os.utime(cache.folder / name, (before, before))
    cache.trim()
    names = {path.name for path in cache.folder.iterdir()}
    assert names == {file_of(cache, KEYS[0]).name, "unlearn-new.part", "mine.part"}


def test_an_empty_cache(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path / "nowhere")
    assert cache.size() == CacheSize(0, 0)
    cache.trim()
    assert cache.clear() == CacheSize(0, 0)
    assert not cache.folder.exists()


def test_the_chosen_limit_belongs_to_the_folder(cache: LatentCache, tmp_path: Path) -> None:
    assert cache.limit == LatentCache(tmp_path / "other").limit == 5 * 10**9
    for key in KEYS:
        cache.put(key, torch.zeros(4, 1024, 2560))  # 42 MB
    cache.set_limit(0.1)
    assert cache.size().pictures == 2, "the rest is deleted at once"
    assert LatentCache(cache.folder).limit == 10**8
    assert cache.clear() == CacheSize(0, 0)
    assert LatentCache(cache.folder).limit == 10**8, "clearing keeps it"
    for damaged in ("", "[]", '{"gigabytes": "x"}', '{"gigabytes": -1}', "[" * 100_000):
        (cache.folder / LIMIT_FILE).write_text(damaged, encoding="utf-8")
        assert LatentCache(cache.folder).limit == 5 * 10**9
