"""Neighbours of a concept: words whose pictures look like the concept's. Unlearning damages these
first, so they are added to the replacements, which are preserved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..dataset.drawing import LatentCache, draw_latents
from ..dataset.settings import GenerationSettings
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import COMPARING, Progress
from ..models.protocol import ModelHandle
from ..prompts.concept import ForgetConcept
from ..prompts.diversify import diversify
from ..prompts.pairs import PromptPair
from .clip_scorer import ClipScorer

PICTURES = 8  # of the concept and of each candidate


@dataclass(frozen=True)
class Neighbour:
    """A word and the similarity of its pictures to the concept's: cosine of CLIP embeddings,
    -1..1."""

    word: str
    similarity: float


def nearest_neighbours(
    model: ModelHandle,
    concept: ForgetConcept,
    candidates: Sequence[str],
    pairs: Sequence[PromptPair],
    scorer: ClipScorer,
    settings: GenerationSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> list[Neighbour]:
    """The candidates, nearest first.

    Each replaces the concept in the same prompts with the same seeds, so that the compared
    pictures differ in this word only.

    Args:
        pairs: pairs whose forget prompts are used.
        progress: ticks once for each picture.
        processes: share the pictures.

    Raises:
        ValueError: no candidates, or one that mentions the concept.
    """
    if not candidates:
        raise ValueError("candidates: none given; write some words such as 'dog, lion, fox'")
    for word in candidates:
        if not word.strip() or concept.is_mentioned_in(word):
            raise ValueError(
                f"candidates: {word!r} is empty or mentions {concept.name!r}; remove it"
            )
    words = (concept.name, *dict.fromkeys(candidates))
    progress, embeddings = progress or Progress(), []
    with progress.phase(COMPARING, len(words) * len(pairs)):
        for word in words:
            prompts = [concept.replaced_in(pair.forget, word) for pair in pairs]
            latents = draw_latents(
                model, prompts, settings, cache=cache, progress=progress, processes=processes
            )
            embeddings.append(scorer.embed_images(model.decode_latents(latents.to(model.device))))
    own, *others = embeddings
    similarities = torch.stack([(other * own).sum(1).mean() for other in others])
    processes.copy_main_([similarities])
    neighbours = [
        Neighbour(word, similarity)
        for word, similarity in zip(words[1:], similarities.tolist(), strict=True)
    ]
    return sorted(neighbours, key=lambda neighbour: -neighbour.similarity)


def with_neighbours(
    model: ModelHandle,
    concept: ForgetConcept,
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    candidates: Sequence[str],
    count: int,
    scorer: ClipScorer | None,
    *,
    drawing: GenerationSettings,
    seed: int = 0,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> ForgetConcept:
    """The concept with the ``count`` candidates that look most like it added to its replacements.

    Args:
        templates, dimensions: of the prompts for the comparison; see ``diversify``.
        drawing: sampler settings; their seed is replaced by ``seed``.

    Raises:
        ValueError: no CLIP, or fewer than ``count`` candidates that are not replacements.
    """
    if scorer is None:
        raise ValueError(
            f"neighbours: {model.info.name!r} has no CLIP to compare pictures with, and none was "
            "found elsewhere; set neighbours to 0, and write the similar things into the "
            "replacements instead"
        )
    words = [word for word in candidates if word not in concept.replacements]
    if not words:
        raise ValueError(
            "candidates: all of them are replacements already; add other words, or set "
            "neighbours to 0"
        )
    if count > len(set(words)):
        raise ValueError(
            f"neighbours must be {len(set(words))} or less, got {count}: only so many candidates "
            "are not replacements already"
        )
    pairs = diversify(concept, templates, dimensions, train_count=PICTURES, test_count=1, seed=seed)
    ranking = nearest_neighbours(
        model,
        concept,
        words,
        pairs.train,
        scorer,
        replace(drawing, seed=seed),
        cache=cache,
        progress=progress,
        processes=processes,
    )
    nearest = tuple(neighbour.word for neighbour in ranking[:count])
    return replace(concept, replacements=concept.replacements + nearest)
