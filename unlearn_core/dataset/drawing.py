"""Pictures drawn by a model, as latents and as pixels, and the cache of latents on disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..foundation.pixels import as_bytes
from ..foundation.progress import Progress
from ..models.denoiser import SAMPLER_VERSION
from ..models.protocol import Conditioning, ModelHandle
from .settings import GenerationSettings

DECODED_AT_ONCE = 16  # pictures
ENCODED_AT_ONCE = 32  # prompts


class LatentCache:
    """A folder of drawn latents, one file each, named by everything that decides its content."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> Tensor | None:
        """The latent [C, h, w] kept under ``key``; an unreadable file counts as absent."""
        try:
            return load(self._file(key).read_bytes())["latent"]
        except (OSError, SafetensorError, KeyError):
            return None

    def put(self, key: str, latent: Tensor) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as part:
            try:
                part.write(save({"latent": latent.contiguous()}))
                part.close()
                os.replace(part.name, self._file(key))
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def picture_key(
    model: ModelHandle,
    prompt: str,
    seed: int,
    settings: GenerationSettings,
    latent_shape: tuple[int, int, int] | None = None,
) -> str:
    """Hash of everything that decides a picture: the model and how it was loaded, prompt, seed,
    sampler and its settings."""
    info = model.info
    loaded = [info.fingerprint, info.prediction, info.mixed, *(latent_shape or model.latent_shape)]
    content = [loaded, prompt, seed, settings.steps, float(settings.guidance_scale)]
    if SAMPLER_VERSION > 1:  # the first version's keys do not name it
        content.append(SAMPLER_VERSION)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def draw_latents(
    model: ModelHandle,
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    latent_shape: tuple[int, int, int] | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """One latent for each prompt, picture i from ``settings.seed + i``, [N, C, h, w] on the CPU.

    Args:
        latent_shape: of another size than the model's own.
        cache: read first and filled batch by batch, so that a cancelled run loses little. Only
            for a model as loaded: its fingerprint says nothing of what unlearning changed.
        progress: ticks once for each picture; checked after each denoising step.
    """
    total, progress = len(prompts), progress or Progress()
    seeds = [settings.seed + i for i in range(total)]
    keys = [
        picture_key(model, p, s, settings, latent_shape)
        for p, s in zip(prompts, seeds, strict=True)
    ]
    found = {i: cache.get(key) if cache else None for i, key in enumerate(keys)}
    drawn = {i: latent for i, latent in found.items() if latent is not None}
    missing = [i for i in range(total) if i not in drawn]
    if drawn:
        progress.tick(len(drawn))
    for start in range(0, len(missing), settings.batch_size):
        batch = missing[start : start + settings.batch_size]
        latents = model.sample(
            [prompts[i] for i in batch],
            [seeds[i] for i in batch],
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            latent_shape=latent_shape,
            progress=progress,
        ).float().cpu()  # fmt: skip
        for i, latent in zip(batch, latents, strict=True):
            drawn[i] = latent
            if cache is not None and latent.isfinite().all():  # or it would be read for ever
                cache.put(keys[i], latent)
        progress.tick(len(batch))
    return torch.stack([drawn[i] for i in range(total)])


def encode_all(model: ModelHandle, prompts: Sequence[str], progress: Progress) -> Conditioning:
    """On the CPU: those of hundreds of prompts would crowd a device."""
    parts = []
    for start in range(0, len(prompts), ENCODED_AT_ONCE):
        part = model.encode_prompts(prompts[start : start + ENCODED_AT_ONCE])
        parts.append(part.to("cpu"))
        progress.check()
    return Conditioning.cat(parts)


def draw_pictures(
    model: ModelHandle,
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The pictures of ``draw_latents``, uint8 [N, 3, H, W] on the CPU: a quarter of the memory
    that floats need, of which hundreds of large ones would fill it."""
    progress = progress or Progress()
    latents = draw_latents(model, prompts, settings, cache=cache, progress=progress)
    pictures = []
    for part in latents.split(DECODED_AT_ONCE):
        pictures.append(as_bytes(model.decode_latents(part.to(model.device))))
        progress.check()
    return torch.cat(pictures)
