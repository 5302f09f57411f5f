"""The batches of a step: rows of the two sets, with noise and timesteps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..dataset.rows import PairedRows, Rows, TrainingSets
from ..models.protocol import Conditioning, ModelHandle
from .objectives import ERASE, PRIOR, ForgetBatch
from .settings import UnlearnSettings

Part = TypeVar("Part")
ANY_PROMPT = (0.5, 0.2, 0.2, 0.1)
"""Shares of a row's own prompt, its parallel's, another parallel's and the empty one, for
``replace_everywhere``."""
RetainBatch = tuple[Tensor, Conditioning, Tensor, Tensor]
"""Latents, conditioning, noise and timesteps of retain pictures."""


def empty_prompt(model: ModelHandle, settings: UnlearnSettings) -> Conditioning | None:
    """Encode the empty prompt, one row; None if the run does not use it. ``harden`` does without it
    if the model does not support it.

    Raises:
        ValueError: the model does not support an empty prompt.
    """
    of_prior = settings.retain_objective == PRIOR
    is_needed = settings.objective == ERASE or settings.empty_share > 0 or of_prior
    if not is_needed and not settings.harden:
        return None
    try:
        return model.encode_prompts([""])
    except ValueError as error:
        if not is_needed:
            return None
        raise ValueError(
            f"this model does not support the empty prompt ({error}); choose another objective "
            f"than {ERASE!r} and {PRIOR!r}, and set empty_share to 0"
        ) from None


class Batches:
    """Draws the forget batch and the retain batches of each step, all from one seed.

    Raises:
        ValueError: the objective needs the empty prompt and the model does not support it.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        parallels = sum(len(part.retain) for part in sets.paired)
        self.more_than_parallels = sum(map(len, sets.retain)) > parallels
        self.empty, self.bare_names = empty_prompt(base, settings), None
        if settings.objective == ERASE:
            self.bare_names = base.encode_prompts([part.concept.alone for part in sets.pairs.each])

    def forget(self) -> ForgetBatch:
        """Draw ``batch_size`` rows, each with a concept's picture and its parallel."""
        part = self._part(self.sets.paired, [len(part.forget) for part in self.sets.paired])
        return self._forget_rows(part, self._rows(len(part.forget)))

    def retain(self, forget: ForgetBatch) -> Iterator[RetainBatch]:
        """The retain pictures of the step, ``batch_size`` at a time. For a share of them
        (``empty_share``), the empty prompt replaces their own; for ``PRIOR``, for all, and at the
        last timestep."""
        for latents, conditioning, noise, t in self._retain_batches(forget):
            if self.settings.retain_objective == PRIOR:
                assert self.empty is not None, "``empty_prompt`` provides it for this objective"
                last = self.base.times(torch.ones(len(latents))).to(t)
                yield latents, self.empty[[0] * len(latents)], noise, last
            else:
                yield latents, self._with_empty_prompts(conditioning, len(latents)), noise, t

    def _with_empty_prompts(self, conditioning: Conditioning, count: int) -> Conditioning:
        share = self.settings.empty_share
        if self.empty is None or share == 0:
            return conditioning
        is_empty = torch.rand(count, generator=self.generator) < share
        rows = torch.where(is_empty, count, torch.arange(count))
        return Conditioning.cat([conditioning, self.empty])[rows.tolist()]

    def _retain_batches(self, forget: ForgetBatch) -> Iterator[RetainBatch]:
        """``retain_batch_factor`` batches; if it is 0, the whole retain set once. The parallels
        count as the first batch. If the retain set contains further pictures, at least one batch
        from the whole retain set follows."""
        if self.settings.retain_batch_factor == 0:
            for part in self.sets.retain:
                for rows in torch.arange(len(part)).split(self.settings.batch_size):
                    yield self._retain_rows(part, rows)
            return
        if self._with_parallels:
            latents, conditioning = forget.parallel_latents, forget.parallel_conditioning
            yield latents, conditioning, forget.noise, forget.t
        for _ in range(self._further_batches):
            part = self._part(self.sets.retain, [len(part) for part in self.sets.retain])
            yield self._retain_rows(part, self._rows(len(part)))

    @property
    def retain_rows(self) -> int:
        """The number of retain pictures of a step."""
        if self.settings.retain_batch_factor == 0:
            return sum(map(len, self.sets.retain))
        return self.settings.batch_size * (self._with_parallels + self._further_batches)

    @property
    def _with_parallels(self) -> bool:
        return self.settings.paired and self.sets.includes_parallels

    @property
    def _further_batches(self) -> int:
        """The number of retain batches of a step besides the parallels."""
        further = self.settings.retain_batch_factor - self._with_parallels
        return max(1, further) if self.more_than_parallels else further

    def every_forget_row(self) -> Iterator[ForgetBatch]:
        """The whole forget set once, ``batch_size`` rows at a time."""
        for part in self.sets.paired:
            for rows in torch.arange(len(part.forget)).split(self.settings.batch_size):
                yield self._forget_rows(part, rows)

    def _forget_rows(self, part: PairedRows, rows: Tensor) -> ForgetBatch:
        latents, conditioning = part.forget.take(rows, self.base.device)
        parallel_latents, parallel_conditioning = part.retain.take(rows, self.base.device)
        noise, t = self._noise(latents)
        names = self.bare_names
        return ForgetBatch(
            latents=latents,
            conditioning=conditioning,
            parallel_latents=parallel_latents,
            parallel_conditioning=parallel_conditioning,
            noise=noise,
            t=t,
            from_concept=self._halves(len(latents)),
            bare_names=None if names is None else names[part.concepts[rows].tolist()],
            empty=self.empty,
            any_prompts=self._any_prompts(part, rows) if self.settings.harden else None,
            correspond=part.correspond,
        )

    def _any_prompts(self, part: PairedRows, rows: Tensor) -> Conditioning:
        """For each row its own prompt, its parallel's, that of any other parallel, or the empty
        one."""
        others = torch.randint(len(part.retain), (len(rows),), generator=self.generator)
        kinds = [part.forget.conditioning[rows], part.retain.conditioning[rows]]
        kinds.append(part.retain.conditioning[others])
        if self.empty is not None:
            kinds.append(self.empty[[0] * len(rows)].to("cpu"))
        shares = torch.tensor(ANY_PROMPT[: len(kinds)])
        drawn = torch.multinomial(shares, len(rows), replacement=True, generator=self.generator)
        places = drawn * len(rows) + torch.arange(len(rows))
        return Conditioning.cat(kinds)[places.tolist()].to(self.base.device)

    def _retain_rows(self, part: Rows, rows: Tensor) -> RetainBatch:
        latents, conditioning = part.take(rows, self.base.device)
        return latents, conditioning, *self._noise(latents)

    def _part(self, parts: Sequence[Part], sizes: Sequence[int]) -> Part:
        """Draw a part with a probability proportional to its rows: all pictures of a batch have
        one size."""
        if len(parts) == 1:
            return parts[0]
        index = torch.multinomial(torch.tensor(sizes).float(), 1, generator=self.generator)
        return parts[int(index)]

    def _halves(self, count: int) -> Tensor:
        """True for a random half of the rows. For an odd number of rows, the half is rounded up or
        down at random."""
        order = torch.randperm(count, generator=self.generator)
        odd = int(torch.randint(2, (1,), generator=self.generator))
        return (order + odd) % 2 == 0

    def _rows(self, total: int) -> Tensor:
        return torch.randint(total, (self.settings.batch_size,), generator=self.generator)

    def _noise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian noise and timesteps, drawn on the CPU so that every device gives the same
        result. Strata are assigned to the rows in random order, because the order of the rows may
        be systematic."""
        count = len(latents)
        strata = torch.randperm(count, generator=self.generator)
        levels = torch.rand(count, generator=self.generator)
        if self.settings.stratified_timesteps:
            levels = (strata + levels) / count
        t = self.base.times(levels)
        noise = torch.randn(latents.shape, generator=self.generator)
        return noise.to(latents.device), t.to(latents.device)
