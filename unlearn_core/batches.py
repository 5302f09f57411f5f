"""What a step looks at: rows of the two sets, with noise and timesteps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .models.protocol import Conditioning, ModelHandle
from .objectives import ERASE, ForgetBatch
from .prompts import PromptPairs
from .settings import UnlearnSettings

RetainBatch = tuple[Tensor, Conditioning, Tensor, Tensor]
"""Latents, prompts, noise and timesteps of retain pictures."""


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """Row i of the forget set and row i of the retain set come from one prompt pair.

    Attributes:
        forget_latents, retain_latents: [N, C, h, w].
        forget_conditioning, retain_conditioning: encoded prompts, [N, …].

    All on the CPU: a device has room for a batch of them, and not for thousands.
    """

    pairs: PromptPairs
    forget_latents: Tensor
    retain_latents: Tensor
    forget_conditioning: Conditioning
    retain_conditioning: Conditioning


def empty_prompt(model: ModelHandle) -> Conditioning:
    """The empty prompt, encoded; one row.

    Raises:
        ValueError: a model that knows none.
    """
    try:
        return model.encode_prompts([""])
    except ValueError as error:
        raise ValueError(
            f"objective {ERASE!r} needs a model that knows the empty prompt, "
            f"choose another ({error})"
        ) from None


class Batches:
    """Draws the forget batch and the retain batches of one step after another, from one seed.

    Raises:
        ValueError: an objective that needs the empty prompt, which the model has not.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.nothing = empty_prompt(base) if settings.objective == ERASE else None

    def forget(self) -> ForgetBatch:
        """``batch_size`` rows, each a concept's picture and its parallel."""
        return self._forget_rows(self._rows(self.settings.batch_size))

    def retain(self, forget: ForgetBatch) -> Iterator[RetainBatch]:
        """The retain pictures of the step, ``batch_size`` at a time: as many times as
        ``retain_batch_factor`` says, or the whole set once."""
        size, factor = self.settings.batch_size, self.settings.retain_batch_factor
        if factor == 0:
            for rows in torch.arange(len(self.sets.retain_latents)).split(size):
                yield self._retain_rows(rows)
            return
        if self.settings.paired:
            latents, conditioning = forget.parallel_latents, forget.parallel_conditioning
            yield latents, conditioning, forget.noise, forget.t
            factor -= 1
        for _ in range(factor):
            yield self._retain_rows(self._rows(size))

    def every_forget_row(self) -> Iterator[ForgetBatch]:
        """The whole forget set once, ``batch_size`` rows at a time."""
        for rows in torch.arange(len(self.sets.forget_latents)).split(self.settings.batch_size):
            yield self._forget_rows(rows)

    def _forget_rows(self, rows: Tensor) -> ForgetBatch:
        latents = self.sets.forget_latents[rows].to(self.base.device)
        noise, t = self._noise(latents)
        return ForgetBatch(
            latents=latents,
            conditioning=self.sets.forget_conditioning[rows].to(self.base.device),
            parallel_latents=self.sets.retain_latents[rows].to(self.base.device),
            parallel_conditioning=self.sets.retain_conditioning[rows].to(self.base.device),
            noise=noise,
            t=t,
            from_concept=self._halves(len(latents)).to(latents.device),
            nothing=self.nothing,
        )

    def _retain_rows(self, rows: Tensor) -> RetainBatch:
        latents = self.sets.retain_latents[rows].to(self.base.device)
        conditioning = self.sets.retain_conditioning[rows].to(self.base.device)
        return latents, conditioning, *self._noise(latents)

    def _halves(self, count: int) -> Tensor:
        """True for one half of the rows, in random order; an odd row falls to either side."""
        order = torch.randperm(count, generator=self.generator)
        odd = int(torch.randint(2, (1,), generator=self.generator))
        return (order + odd) % 2 == 0

    def _rows(self, count: int) -> Tensor:
        total = len(self.sets.forget_latents)
        return torch.randint(total, (count,), generator=self.generator)

    def _noise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian noise and timesteps spread evenly over the schedule (stratified: the same
        expectation, less variance), drawn on the CPU so that devices agree. In random order, for
        a row's place in the batch may mean something."""
        count = len(latents)
        strata = torch.randperm(count, generator=self.generator)
        spread = (strata + torch.rand(count, generator=self.generator)) / count
        t = (spread * self.base.timesteps).long().clamp(max=self.base.timesteps - 1)
        noise = torch.randn(latents.shape, generator=self.generator)
        return noise.to(latents.device), t.to(latents.device)
