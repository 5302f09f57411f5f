"""What a step looks at: rows of the two sets, with noise and timesteps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..dataset.rows import PairedRows, Rows, TrainingSets
from ..models.protocol import Conditioning, ModelHandle
from .objectives import ERASE, ForgetBatch
from .settings import UnlearnSettings

Part = TypeVar("Part")
RetainBatch = tuple[Tensor, Conditioning, Tensor, Tensor]
"""Latents, prompts, noise and timesteps of retain pictures."""


def empty_prompt(model: ModelHandle, settings: UnlearnSettings) -> Conditioning | None:
    """The empty prompt, encoded, one row; None where the run has no use for it.

    Raises:
        ValueError: a model that knows none.
    """
    if settings.objective != ERASE and settings.empty_share == 0:
        return None
    try:
        return model.encode_prompts([""])
    except ValueError as error:
        raise ValueError(
            f"objective {ERASE!r} and an empty_share above 0 need a model that knows the empty "
            f"prompt, choose another objective, and 0 ({error})"
        ) from None


class Batches:
    """Draws the forget batch and the retain batches of one step after another, from one seed.

    Raises:
        ValueError: an objective that needs the empty prompt, which the model has not.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        parallels = sum(len(part.retain) for part in sets.paired)
        self.more_to_keep = sum(map(len, sets.retain)) > parallels  # whom no parallel stands for
        self.nothing, self.names = empty_prompt(base, settings), None
        if settings.objective == ERASE:
            self.names = base.encode_prompts([part.concept.alone for part in sets.pairs.each])

    def forget(self) -> ForgetBatch:
        """``batch_size`` rows, each a concept's picture and its parallel."""
        part = self._part(self.sets.paired, [len(part.forget) for part in self.sets.paired])
        return self._forget_rows(part, self._rows(len(part.forget)))

    def retain(self, forget: ForgetBatch) -> Iterator[RetainBatch]:
        """The retain pictures of the step, ``batch_size`` at a time, a share of them under the
        empty prompt."""
        for latents, conditioning, noise, t in self._retained(forget):
            yield latents, self._emptied(conditioning, len(latents)), noise, t

    def _emptied(self, conditioning: Conditioning, count: int) -> Conditioning:
        share = self.settings.empty_share
        if self.nothing is None or share == 0:
            return conditioning
        emptied = torch.rand(count, generator=self.generator) < share
        rows = torch.where(emptied, count, torch.arange(count))
        return Conditioning.cat([conditioning, self.nothing])[rows.tolist()]

    def _retained(self, forget: ForgetBatch) -> Iterator[RetainBatch]:
        """As many times as ``retain_batch_factor`` says, or the whole set once. Parallels that come
        first leave room for one batch of what joined them."""
        size, factor = self.settings.batch_size, self.settings.retain_batch_factor
        if factor == 0:
            for part in self.sets.retain:
                for rows in torch.arange(len(part)).split(size):
                    yield self._retain_rows(part, rows)
            return
        if self.settings.paired and self.sets.includes_parallels:
            latents, conditioning = forget.parallel_latents, forget.parallel_conditioning
            yield latents, conditioning, forget.noise, forget.t
            factor -= 1
            if self.more_to_keep:
                factor = max(1, factor)
        for _ in range(factor):
            part = self._part(self.sets.retain, [len(part) for part in self.sets.retain])
            yield self._retain_rows(part, self._rows(len(part)))

    def every_forget_row(self) -> Iterator[ForgetBatch]:
        """The whole forget set once, ``batch_size`` rows at a time."""
        for part in self.sets.paired:
            for rows in torch.arange(len(part.forget)).split(self.settings.batch_size):
                yield self._forget_rows(part, rows)

    def _forget_rows(self, part: PairedRows, rows: Tensor) -> ForgetBatch:
        latents, conditioning = part.forget.take(rows, self.base.device)
        parallel_latents, parallel_conditioning = part.retain.take(rows, self.base.device)
        noise, t = self._noise(latents)
        return ForgetBatch(
            latents=latents,
            conditioning=conditioning,
            parallel_latents=parallel_latents,
            parallel_conditioning=parallel_conditioning,
            noise=noise,
            t=t,
            from_concept=self._halves(len(latents)).to(latents.device),
            alone=None if self.names is None else self.names[part.concepts[rows].tolist()],
            nothing=self.nothing,
        )

    def _retain_rows(self, part: Rows, rows: Tensor) -> RetainBatch:
        latents, conditioning = part.take(rows, self.base.device)
        return latents, conditioning, *self._noise(latents)

    def _part(self, parts: Sequence[Part], sizes: Sequence[int]) -> Part:
        """One of the parts, in proportion to their rows: a batch is of one picture size."""
        if len(parts) == 1:
            return parts[0]
        drawn = torch.multinomial(torch.tensor(sizes).float(), 1, generator=self.generator)
        return parts[int(drawn)]

    def _halves(self, count: int) -> Tensor:
        """True for one half of the rows, in random order; an odd row falls to either side."""
        order = torch.randperm(count, generator=self.generator)
        odd = int(torch.randint(2, (1,), generator=self.generator))
        return (order + odd) % 2 == 0

    def _rows(self, total: int) -> Tensor:
        return torch.randint(total, (self.settings.batch_size,), generator=self.generator)

    def _noise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian noise and timesteps, drawn on the CPU so that devices agree. Strata in random
        order, for a row's place in the batch may mean something."""
        count = len(latents)
        strata = torch.randperm(count, generator=self.generator)
        spread = torch.rand(count, generator=self.generator)
        if self.settings.stratified_timesteps:
            spread = (strata + spread) / count
        t = self.base.times(spread)
        noise = torch.randn(latents.shape, generator=self.generator)
        return noise.to(latents.device), t.to(latents.device)
