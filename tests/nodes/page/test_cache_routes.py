"""The size of the picture cache in ComfyUI's settings, and the button that clears it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ..pack import call, pack_module


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "unlearn_cache"
    monkeypatch.setattr(pack_module("nodes.page.routes"), "cache_folder", lambda: folder)
    return folder


def test_size_and_clear(cache: Path) -> None:
    limit = 5 * 10**9
    empty = {"pictures": 0, "size": 0, "limit": limit}
    assert call("GET", "/unlearn/cache") == (200, empty)
    latents = pack_module("unlearn_core.dataset.cache").LatentCache(cache)
    for i in range(2):
        latents.put(f"{i:064x}", torch.zeros(4, 8, 8))
    (cache / "mine.safetensors").write_bytes(b"mine")
    size = sum(file.stat().st_size for file in cache.iterdir()) - len(b"mine")
    assert call("GET", "/unlearn/cache") == (200, {"pictures": 2, "size": size, "limit": limit})
    assert call("POST", "/unlearn/cache/clear", {}) == (200, empty)
    assert [file.name for file in cache.iterdir()] == ["mine.safetensors"]


def test_the_limit_can_be_set(cache: Path) -> None:
    latents = pack_module("unlearn_core.dataset.cache").LatentCache
    assert call("POST", "/unlearn/cache/limit", {"gigabytes": 7.5})[1]["limit"] == 7.5e9
    assert call("GET", "/unlearn/cache")[1]["limit"] == latents(cache).limit == 7.5e9
    for value in (None, 0, -1, "7", True, 10**400, float("nan")):
        status, answer = call("POST", "/unlearn/cache/limit", {"gigabytes": value})
        assert (status, answer["error"][:13]) == (400, "limit must be")
    assert latents(cache).limit == 7.5e9
