"""Previews: pictures of a few prompts that show the progress of a run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .drawing import draw_latents
from .settings import GenerationSettings

FORGET_PROMPTS = 3  # in all, but at least one per concept


@dataclass(frozen=True)
class PreviewPrompts:
    """Held-out prompts, forget prompts first, whose pictures always have the same seeds."""

    prompts: tuple[str, ...]
    forget_count: int
    settings: GenerationSettings

    @staticmethod
    def of(pairs: PromptPairs, settings: GenerationSettings) -> PreviewPrompts:
        """A few forget prompts, alternating between the concepts, and as many retain prompts."""
        tests = [part.test for part in pairs.each]
        in_turn = (pair for row in itertools.zip_longest(*tests) for pair in row if pair)
        first = list(itertools.islice(in_turn, max(FORGET_PROMPTS, len(tests))))
        prompts = [pair.forget for pair in first] + [pair.retain for pair in first]
        return PreviewPrompts(tuple(prompts), len(first), settings)

    def draw(self, model: ModelHandle, progress: Progress | None = None) -> Tensor:
        """Pictures [N, 3, H, W] in 0..1, one per prompt; ``progress`` ticks once for each."""
        latents = draw_latents(model, self.prompts, self.settings, progress=progress)
        return model.decode_latents(latents.to(model.device))
