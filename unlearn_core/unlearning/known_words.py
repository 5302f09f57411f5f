"""Whether a model knows a word, tested before anything is drawn."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..foundation.cost import JUDGING
from ..foundation.progress import Progress
from ..models.counted import Counted
from ..models.protocol import Conditioning, ModelHandle
from ..prompts.concept import LOOK
from ..prompts.pairs import PromptPairs
from .alarms import UNKNOWN, Alarm, unknown_word
from .methods import CLASS_FAMILIES

MADE_UP = ("florp", "blixet", "qovandu", "strenk")
PROMPTS, ROWS_AT_ONCE = 8, 2  # per concept
SMALLEST = 1e-12  # distance
LEVEL = 0.99  # noise: the prediction from noise alone is the average picture of the prompt


def unknown_words(model: ModelHandle, pairs: PromptPairs, progress: Progress) -> list[Alarm]:
    """One alarm for each concept that affects the predictions no more than a made-up word.

    Models with class labels know all their classes and read no other words. A look has no word.
    """
    if model.info.family in CLASS_FAMILIES:
        return []
    return [
        unknown_word(part.concept.name)
        for part in pairs.each
        if part.concept.kind not in ("class", LOOK) and strength(model, part, progress) < UNKNOWN
    ]


@torch.no_grad()
def strength(model: ModelHandle, pairs: PromptPairs, progress: Progress) -> float:
    """Distance between the predictions for the concept's prompts and those for the same prompts
    with made-up words, relative to the distance between different made-up words. About 1 for a word
    that the model does not know."""
    counted = Counted(model, progress.silent(JUDGING))
    stride = max(1, len(pairs.train) // PROMPTS)
    prompts = [pair.forget for pair in pairs.train[::stride]][:PROMPTS]
    variants = [prompts, *([pairs.concept.replaced_in(p, w) for p in prompts] for w in MADE_UP)]
    # All at once, because a program may load the text encoder and the denoiser in turn.
    encoded = [model.encode_prompts(texts).to(model.device) for texts in variants]
    noise = torch.randn(
        (len(prompts), *model.latent_shape), generator=torch.Generator().manual_seed(0)
    )
    t = model.times(torch.full((len(prompts),), LEVEL))

    def predictions(conditioning: Conditioning) -> Tensor:
        parts = []
        for i in range(0, len(prompts), ROWS_AT_ONCE):
            rows = slice(i, i + ROWS_AT_ONCE)
            latents, times = noise[rows].to(model.device), t[rows].to(model.device)
            parts.append(counted.predict(latents, conditioning[rows], times).float())
            progress.check()
        return torch.cat(parts)

    word, *others = map(predictions, encoded)
    between = _mean(list(itertools.combinations(others, 2)))
    # ``between`` is 0 if the model does not distinguish any words that it does not know.
    return _mean([(word, other) for other in others]) / max(between, SMALLEST)


def _mean(pairs: list[tuple[Tensor, Tensor]]) -> float:
    return sum((a - b).square().mean().item() for a, b in pairs) / len(pairs)
