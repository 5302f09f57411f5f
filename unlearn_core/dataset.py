"""The forget and retain sets: pictures that the model itself draws, cached on disk by content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .batches import PairedRows, Rows, TrainingSets
from .models.protocol import Conditioning, ModelHandle, OnPicture, OnStep
from .own_pictures import OwnPictures, captioned, check_retained, encoded
from .pixels import as_bytes
from .prompts import PromptPairs
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
    sampler settings."""
    info = model.info
    loaded = [info.fingerprint, info.prediction, info.mixed, *(latent_shape or model.latent_shape)]
    content = [loaded, prompt, seed, settings.steps, float(settings.guidance_scale)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def draw_latents(
    model: ModelHandle,
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    latent_shape: tuple[int, int, int] | None = None,
    cache: LatentCache | None = None,
    on_picture: OnPicture | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """One latent for each prompt, picture i from ``settings.seed + i``, [N, C, h, w] on the CPU.

    Args:
        latent_shape: of another size than the model's own.
        cache: read first and filled batch by batch, so that a cancelled run loses little. Only
            for a model as loaded: its fingerprint says nothing of what unlearning changed.
        on_picture: progress in pictures, called after each batch.
        on_step: called after each denoising step.
    """
    total = len(prompts)
    seeds = [settings.seed + i for i in range(total)]
    keys = [
        picture_key(model, p, s, settings, latent_shape)
        for p, s in zip(prompts, seeds, strict=True)
    ]
    found = {i: cache.get(key) if cache else None for i, key in enumerate(keys)}
    drawn = {i: latent for i, latent in found.items() if latent is not None}
    missing = [i for i in range(total) if i not in drawn]
    if on_picture is not None:
        on_picture(len(drawn), total)
    for start in range(0, len(missing), settings.batch_size):
        batch = missing[start : start + settings.batch_size]
        latents = model.sample(
            [prompts[i] for i in batch],
            [seeds[i] for i in batch],
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            latent_shape=latent_shape,
            on_step=on_step,
        ).float().cpu()  # fmt: skip
        for i, latent in zip(batch, latents, strict=True):
            drawn[i] = latent
            if cache is not None and latent.isfinite().all():  # or it would be read for ever
                cache.put(keys[i], latent)
        if on_picture is not None:
            on_picture(len(drawn), total)
    return torch.stack([drawn[i] for i in range(total)])


def _encoded(model: ModelHandle, prompts: Sequence[str], on_step: OnStep | None) -> Conditioning:
    """On the CPU: those of hundreds of prompts would crowd a device."""
    parts = []
    for start in range(0, len(prompts), ENCODED_AT_ONCE):
        part = model.encode_prompts(prompts[start : start + ENCODED_AT_ONCE])
        parts.append(part.to("cpu"))
        if on_step is not None:
            on_step()
    return Conditioning.cat(parts)


def draw_pictures(
    model: ModelHandle,
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    cache: LatentCache | None = None,
    on_picture: OnPicture | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The pictures of ``draw_latents``, uint8 [N, 3, H, W] on the CPU: a quarter of the memory
    that floats need, of which hundreds of large ones would fill it."""
    latents = draw_latents(
        model, prompts, settings, cache=cache, on_picture=on_picture, on_step=on_step
    )
    pictures = []
    for part in latents.split(DECODED_AT_ONCE):
        pictures.append(as_bytes(model.decode_latents(part.to(model.device))))
        if on_step is not None:
            on_step()
    return torch.cat(pictures)


def make_training_sets(
    model: ModelHandle,
    pairs: PromptPairs,
    settings: GenerationSettings,
    *,
    forget_pictures: OwnPictures | None = None,
    retain_pictures: OwnPictures | None = None,
    cache: LatentCache | None = None,
    on_picture: OnPicture | None = None,
    on_step: OnStep | None = None,
) -> TrainingSets:
    """Draw the pictures of every train prompt of every concept; both halves of a pair start from
    the same seed.

    Args:
        forget_pictures: a person's own pictures of the concept, which join the drawn ones or take
            their place; their parallels are drawn, in the same sizes.
        retain_pictures: pictures of what is to be kept, likewise.
        on_picture: progress in pictures drawn or read.

    Raises:
        ValueError: a caption that does not go with its set.
    """
    own_pairs = captioned(forget_pictures, pairs) if forget_pictures else []
    if retain_pictures:
        check_retained(retain_pictures, pairs)
    drawn = [(pair, k) for k, part in enumerate(pairs.each) for pair in part.train]
    if forget_pictures and forget_pictures.alone:
        drawn = []
    owned = [own for own in (forget_pictures, retain_pictures) if own is not None]
    total = 2 * len(drawn) + len(own_pairs) + sum(len(own.images) for own in owned)
    maker = _RowMaker(model, settings, cache, on_picture or (lambda *_: None), on_step, total)

    # Own ones first: what is wrong with them should be known before hundreds of others are drawn.
    forget_own, retain_own = maker.own(forget_pictures), maker.own(retain_pictures)
    paired = []
    if drawn:
        forget = maker.drawn([pair.forget for pair, _ in drawn], model.latent_shape)
        retain = maker.drawn([pair.retain for pair, _ in drawn], model.latent_shape)
        paired.append(PairedRows(forget, retain, torch.tensor([k for _, k in drawn])))
    for own, chosen in forget_own:
        shape = (own.latents.shape[1], own.latents.shape[2], own.latents.shape[3])
        retain = maker.drawn([own_pairs[i][0].retain for i in chosen], shape)
        concepts = torch.tensor([own_pairs[i][1] for i in chosen])
        paired.append(PairedRows(own, retain, concepts))
    kept = [own for own, _ in retain_own]
    alone = retain_pictures is not None and retain_pictures.alone
    if not alone:
        kept = [*(part.retain for part in paired), *kept]
    return TrainingSets(pairs, tuple(paired), tuple(kept), includes_parallels=not alone)


@dataclass
class _RowMaker:
    """Makes the rows of a set, and tells how many of all pictures are there."""

    model: ModelHandle
    settings: GenerationSettings
    cache: LatentCache | None
    on_picture: OnPicture
    on_step: OnStep | None
    total: int
    done: int = 0

    def drawn(self, prompts: list[str], shape: tuple[int, int, int]) -> Rows:
        before = self.done
        latents = draw_latents(
            self.model,
            prompts,
            self.settings,
            latent_shape=shape,
            cache=self.cache,
            on_picture=lambda done, _: self.on_picture(before + done, self.total),
            on_step=self.on_step,
        )
        self.done += len(prompts)
        return Rows(latents, _encoded(self.model, prompts, self.on_step))

    def own(self, pictures: OwnPictures | None) -> list[tuple[Rows, list[int]]]:
        """A person's pictures, a part for each size, and which of them are in it."""
        if pictures is None:
            return []
        found = []
        for latents, chosen in encoded(self.model, pictures, self._read):
            captions = [pictures.captions[i] for i in chosen]
            found.append((Rows(latents, _encoded(self.model, captions, self.on_step)), chosen))
        return found

    def _read(self) -> None:
        self.done += 1
        self.on_picture(self.done, self.total)
        if self.on_step is not None:
            self.on_step()
