"""Picture generation, as latents and as pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from ..foundation.interruption import Interruptible
from ..foundation.pixels import as_bytes
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import Progress
from ..models.denoiser import SAMPLER_VERSION
from ..models.prompt_syntax import SYNTAX_VERSION, is_plain
from ..models.protocol import Conditioning, ModelHandle
from .cache import LatentCache
from .settings import GenerationSettings

DECODING_BATCH = 16  # pictures
ENCODING_BATCH = 32  # prompts


def picture_key(
    model: ModelHandle,
    prompt: str,
    seed: int,
    settings: GenerationSettings,
    latent_shape: tuple[int, int, int] | None = None,
) -> str:
    """A hash of everything that determines a picture: the model, its load options, the prompt, the
    seed, the sampler and its settings."""
    info = model.info
    source = [info.fingerprint, info.prediction, info.mixed, *(latent_shape or model.latent_shape)]
    content = [source, prompt, seed, settings.steps, float(settings.guidance_scale)]
    if info.clip_skip:
        content.append(f"clip skip {info.clip_skip}")
    if not is_plain(prompt):
        content.append(SYNTAX_VERSION)
    if SAMPLER_VERSION > 1:  # version 1 is not part of the keys
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
    processes: Processes = ALONE,
) -> Tensor:
    """One latent per prompt, picture i from ``settings.seed + i``, [N, C, h, w] on the CPU.

    Args:
        latent_shape: for another size than the model's own.
        cache: read first and filled batch by batch, so that a cancelled run loses little. Only
            for loaded models: an unlearned model has the same fingerprint as its base.
        progress: ticks once for each picture; checked after each denoising step.
        processes: share the pictures that are not in the cache, ``settings.batch_size`` each at a
            time. All of them receive all latents.
    """
    total, progress = len(prompts), progress or Progress()
    progress.count_passes(total * settings.steps * model.passes_per_step(settings.guidance_scale))
    seeds = [settings.seed + i for i in range(total)]
    keys = [
        picture_key(model, p, s, settings, latent_shape)
        for p, s in zip(prompts, seeds, strict=True)
    ]
    from_cache = {i: cache.get(key, progress) if cache else None for i, key in enumerate(keys)}
    shape = latent_shape or model.latent_shape
    by_index = {i: x for i, x in from_cache.items() if x is not None and x.shape == shape}
    # Each host may have its own cache; what one of them lacks, all processes draw together.
    absent = torch.tensor([i not in by_index for i in range(total)], dtype=torch.int32)
    processes.sum_([absent])
    missing: list[int] = absent.nonzero().flatten().tolist()
    if len(missing) < total:
        progress.tick(total - len(missing))

    interruptible = Interruptible(progress)

    def draw(rows: range) -> Tensor:
        with interruptible.within(settings.steps):
            return model.sample(
                [prompts[i] for i in missing[rows.start : rows.stop]],
                [seeds[i] for i in missing[rows.start : rows.stop]],
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                latent_shape=latent_shape,
                progress=progress,
            ).float().cpu()  # fmt: skip

    for rows, latents in processes.divided(len(missing), settings.batch_size, draw, progress):
        for row, latent in zip(rows, latents, strict=True):
            by_index[missing[row]] = latent
            # Never cache a failed picture.
            if cache is not None and processes.is_first_of_host and latent.isfinite().all():
                cache.put(keys[missing[row]], latent, progress)
        progress.tick(len(rows))
    if cache is not None and missing and processes.is_first_of_host:
        cache.trim()
    return torch.stack([by_index[i] for i in range(total)])


def encode_all(model: ModelHandle, prompts: Sequence[str], progress: Progress) -> Conditioning:
    """Encode prompts to the CPU; the embeddings of hundreds of prompts would fill a device."""
    parts = []
    for start in range(0, len(prompts), ENCODING_BATCH):
        part = model.encode_prompts(prompts[start : start + ENCODING_BATCH])
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
    processes: Processes = ALONE,
) -> Tensor:
    """The pictures of ``draw_latents``, uint8 [N, 3, H, W] on the CPU. As floats, hundreds of large
    pictures would need four times the memory."""
    progress = progress or Progress()
    latents = draw_latents(
        model, prompts, settings, cache=cache, progress=progress, processes=processes
    )
    return decode_pictures(model, latents, progress, processes)


def decode_pictures(
    model: ModelHandle, latents: Tensor, progress: Progress, processes: Processes = ALONE
) -> Tensor:
    """The pictures of latents [N, C, h, w], uint8 [N, 3, H, W] on the CPU."""
    interruptible = Interruptible(progress)

    def decode(rows: range) -> Tensor:
        part = latents[rows.start : rows.stop]
        with interruptible.within():
            return as_bytes(model.decode_latents(part.to(model.device)))

    pictures = []
    for _, part in processes.divided(len(latents), DECODING_BATCH, decode, progress):
        pictures.append(part)
        progress.check()
    return torch.cat(pictures)
