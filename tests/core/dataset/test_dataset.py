"""Cache and progress of picture generation, with a real model whose calls are counted."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.drawing import LatentCache, draw_latents, picture_key
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.foundation.interruption import Interruptible
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs

from ..embeddings import embeddings
from ..watching import Recorder, StopError, Stopping

SETTINGS = GenerationSettings(steps=2, batch_size=2, seed=5)
PROMPTS = ["a cat", "a dog", "a house", "a cat", "a tree"]


class Counted:
    """The model, with a record of its generated pictures."""

    def __init__(self, model: ModelHandle) -> None:
        self.model = model
        self.drawn: list[tuple[str, int]] = []

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Tensor:
        self.drawn += zip(prompts, seeds, strict=True)
        return self.model.sample(prompts, seeds, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@pytest.fixture
def counted(sd_model: ModelHandle) -> Any:
    return Counted(sd_model)


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "not" / "yet" / "there")


def files(cache: LatentCache) -> Iterator[Path]:
    return cache.folder.glob("*")


def test_each_picture_has_its_prompt_and_seed(counted: Any) -> None:
    latents = draw_latents(counted, PROMPTS, SETTINGS)
    assert latents.shape == (5, *counted.latent_shape)
    assert (latents.device.type, latents.dtype) == ("cpu", torch.float32)
    assert counted.drawn == list(zip(PROMPTS, range(5, 10), strict=True))
    third = counted.model.sample(["a house"], [7], steps=2, guidance_scale=4.0)
    torch.testing.assert_close(latents[2:3], third, rtol=1e-3, atol=1e-3)


def test_a_second_run_takes_everything_from_the_cache(counted: Any, cache: LatentCache) -> None:
    first = draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert len(counted.drawn) == 5
    second = draw_latents(counted, PROMPTS, SETTINGS, cache=LatentCache(str(cache.folder)))
    assert len(counted.drawn) == 5
    assert torch.equal(first, second)


def test_a_cached_picture_is_used_in_any_batch(counted: Any, cache: LatentCache) -> None:
    first = draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    counted.drawn.clear()
    prompts = [*PROMPTS[:2], "a boat", *PROMPTS[3:]]
    second = draw_latents(counted, prompts, replace(SETTINGS, batch_size=5), cache=cache)
    assert counted.drawn == [("a boat", 7)]
    assert torch.equal(second[[0, 1, 3, 4]], first[[0, 1, 3, 4]])
    assert not torch.equal(second[2], first[2])


def test_a_key_depends_on_everything_that_determines_the_picture(sd_folder: Path) -> None:
    model: Any = load_model(sd_folder)

    def key(
        prompt: str = "p", seed: int = 1, info: dict[str, Any] | None = None, **settings: float
    ) -> str:
        other = replace(model, info=replace(model.info, **(info or {})))
        return picture_key(other, prompt, seed, replace(SETTINGS, **settings))

    keys = [
        key(),
        key(info={"fingerprint": "g"}),
        key(info={"prediction": "v_prediction"}),
        key(info={"mixed": True}),
        key(info={"image_size": 2 * model.info.image_size}),
        key(prompt="q"),
        key(prompt="p "),
        key(prompt="é"),
        key(seed=2),
        key(steps=3),
        key(guidance_scale=2.0),
        key(prompt=""),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == hashlib.sha256().digest_size * 2 for k in keys)
    # Other settings must not invalidate the cache; each picture has its own seed.
    assert key(batch_size=7) == key() == key()
    assert picture_key(model, "p", 1, replace(SETTINGS, seed=9)) == key()
    assert key(guidance_scale=4) == key(guidance_scale=4.0)


def test_a_new_sampler_version_changes_the_key_and_the_first_version_keeps_its_keys(
    sd_model: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed key of the first version: its cached pictures must remain valid."""
    model: Any = sd_model
    fixed = replace(model, info=replace(model.info, fingerprint="f"))
    first = picture_key(fixed, "a cat", 1, GenerationSettings(steps=20, guidance_scale=7.5))
    assert first == "ade252e86b1ed2e667c8ee00c05057f484be366dc409bf08cf62f8fcfb0dbea2"
    monkeypatch.setattr("unlearn_core.dataset.drawing.SAMPLER_VERSION", 2)
    assert picture_key(fixed, "a cat", 1, GenerationSettings(20, 7.5)) != first


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_the_picture_of_a_damaged_cache_file_is_generated_again(
    counted: Any, cache: LatentCache, content: bytes
) -> None:
    first = draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    damaged = picture_key(counted, "a dog", 6, SETTINGS)
    file = cache.folder / f"{damaged}.safetensors"
    file.write_bytes(content)
    counted.drawn.clear()
    second = draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert counted.drawn == [("a dog", 6)]
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-3)
    assert cache.get(damaged) is not None


def test_the_picture_of_a_truncated_cache_file_is_generated_again(
    counted: Any, cache: LatentCache
) -> None:
    draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    for file in files(cache):
        file.write_bytes(file.read_bytes()[:-1])
    counted.drawn.clear()
    draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert len(counted.drawn) == 5


def test_pictures_that_are_not_finite_are_not_cached(
    counted: Any, cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later run would read them again."""
    sample = counted.sample
    monkeypatch.setattr(counted, "sample", lambda *args, **kw: sample(*args, **kw) * torch.nan)
    draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert list(files(cache)) == []


def test_a_run_continues_without_a_cache_that_cannot_be_written(
    counted: Any, cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    announced: list[str] = []

    class Announcing(Recorder):
        def announce(self, sentence: str) -> None:
            announced.append(sentence)

    monkeypatch.setattr("os.replace", full)
    progress = Announcing()
    with progress.phase("drawing", len(PROMPTS)):
        latents = draw_latents(counted, PROMPTS, SETTINGS, cache=cache, progress=progress)
    assert torch.equal(latents, draw_latents(counted, PROMPTS, SETTINGS))
    (sentence,) = announced
    assert "The run goes on without it" in sentence
    assert f"free some disk space in '{cache.folder}'" in sentence
    assert list(files(cache)) == []


def test_a_cached_picture_of_another_shape_is_generated_again(
    counted: Any, cache: LatentCache
) -> None:
    key = picture_key(counted, "a dog", 6, SETTINGS)
    cache.put(key, torch.zeros(4, 1, 1))
    first = draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert ("a dog", 6) in counted.drawn
    assert torch.equal(draw_latents(counted, PROMPTS, SETTINGS, cache=cache), first)


def test_progress_counts_every_picture_once(counted: Any, cache: LatentCache) -> None:
    for expected in ([0, 2, 4, 5], [0, 5]):  # the second time all come from the cache
        progress = Recorder()
        with progress.phase("drawing", len(PROMPTS)):
            draw_latents(counted, PROMPTS, SETTINGS, cache=cache, progress=progress)
        assert progress.counts("drawing") == expected


@pytest.mark.parametrize("cancel_at", [1, 2, 4, 5])
def test_cancelling_keeps_the_finished_batches(
    counted: Any, cache: LatentCache, cancel_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interruptible, "within", lambda *_: nullcontext())  # checks in a step

    class StopsInSampling(Stopping):
        def tick(self, count: int = 1, note: str = "") -> None:
            """Not counted here."""

    with pytest.raises(StopError):
        draw_latents(counted, PROMPTS, SETTINGS, cache=cache, progress=StopsInSampling(cancel_at))
    finished = (cancel_at - 1) // SETTINGS.steps * SETTINGS.batch_size
    assert len(list(files(cache))) == finished
    counted.drawn.clear()
    draw_latents(counted, PROMPTS, SETTINGS, cache=cache)
    assert [prompt for prompt, _ in counted.drawn] == PROMPTS[finished:]


def test_cancelling_between_batches_keeps_the_finished_pictures(
    counted: Any, cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interruptible, "_before", lambda *_: None)
    at = SETTINGS.steps + 1  # after the first batch
    with pytest.raises(StopError):
        draw_latents(counted, PROMPTS, SETTINGS, cache=cache, progress=Stopping(at))
    assert len(list(files(cache))) == 2


def test_training_sets_are_paired_row_by_row(
    counted: Any, pairs: PromptPairs, cache: LatentCache
) -> None:
    progress = Recorder()
    sets = make_training_sets(counted, pairs, SETTINGS, cache=cache, progress=progress)
    forget, retain = ([getattr(p, side) for p in pairs.train] for side in ("forget", "retain"))
    seeds = list(range(5, 11))
    # Both pictures of a pair have the same seed, so they differ in the concept only.
    assert counted.drawn == [*zip(forget, seeds, strict=True), *zip(retain, seeds, strict=True)]
    (part,) = sets.paired
    assert sets.retain == (part.retain,)
    assert torch.equal(
        embeddings(part.forget.conditioning).values, counted.encode_prompts(forget).values
    )
    assert torch.equal(
        embeddings(part.retain.conditioning).values, counted.encode_prompts(retain).values
    )
    assert torch.equal(part.forget.latents, draw_latents(counted, forget, SETTINGS, cache=cache))
    assert torch.equal(part.retain.latents, draw_latents(counted, retain, SETTINGS, cache=cache))
    assert sets.pairs is pairs
    # Progress never decreases and reaches the total.
    counts = progress.counts("making images")
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 12)
    assert {total for _, _, total in progress.updates} == {12}
    assert len(counted.drawn) == 12
