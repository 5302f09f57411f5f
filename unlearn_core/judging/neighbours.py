"""What looks like a concept suffers first when it is forgotten: find it, and protect it by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..dataset.drawing import LatentCache, draw_latents
from ..dataset.settings import GenerationSettings
from ..foundation.progress import COMPARING, Progress
from ..models.protocol import ModelHandle
from ..prompts.concept import ForgetConcept
from ..prompts.diversify import diversify
from ..prompts.pairs import PromptPair
from .clip_scorer import ClipScorer

PICTURES = 8  # drawn of the concept and of each candidate


@dataclass(frozen=True)
class Neighbour:
    """A word and how alike its pictures are to the concept's: cosine of CLIP embeddings, -1..1."""

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
) -> list[Neighbour]:
    """The candidates, nearest first.

    Each is drawn in the concept's place in the same prompts from the same seeds, so that pictures
    are compared one by one and nothing but the word differs.

    Args:
        pairs: whose forget prompts are drawn.
        progress: ticks once for each picture.

    Raises:
        ValueError: no candidate, or one that is the concept itself.
    """
    if not candidates:
        raise ValueError("candidates: none given, write some words such as 'dog, lion, fox'")
    for word in candidates:
        if not word.strip() or concept.is_mentioned_in(word):
            raise ValueError(f"candidates: {word!r} is no other word than {concept.name!r}")
    words = (concept.name, *dict.fromkeys(candidates))
    progress, embedded = progress or Progress(), []
    with progress.phase(COMPARING, len(words) * len(pairs)):
        for word in words:
            prompts = [concept.replaced_in(pair.forget, word) for pair in pairs]
            latents = draw_latents(model, prompts, settings, cache=cache, progress=progress)
            embedded.append(scorer.embed_images(model.decode_latents(latents.to(model.device))))
    own, *others = embedded
    found = [
        Neighbour(word, (other * own).sum(1).mean().item())
        for word, other in zip(words[1:], others, strict=True)
    ]
    return sorted(found, key=lambda neighbour: -neighbour.similarity)


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
) -> ForgetConcept:
    """The concept with the ``count`` candidates that look most like it among its replacements.

    Args:
        templates, dimensions: of the prompts that are drawn; see ``diversify``.
        drawing: how, but for the seed.

    Raises:
        ValueError: no CLIP to compare with, or no candidate that is not a replacement already.
    """
    if scorer is None:
        raise ValueError(
            f"neighbours: {model.info.name!r} has no CLIP beside it to compare pictures with, and "
            "none was chosen; name its neighbours among the concept's replacements and set this "
            "to 0"
        )
    words = [word for word in candidates if word not in concept.replacements]
    if not words:
        raise ValueError(
            "candidates: no word that is not among the replacements already, "
            "write some or set neighbours to 0"
        )
    if count > len(set(words)):
        raise ValueError(
            f"neighbours must be {len(set(words))} or less, as many as there are candidates beside "
            f"the replacements, got {count}"
        )
    few = diversify(concept, templates, dimensions, train_count=PICTURES, test_count=1, seed=seed)
    found = nearest_neighbours(
        model,
        concept,
        words,
        few.train,
        scorer,
        replace(drawing, seed=seed),
        cache=cache,
        progress=progress,
    )
    nearest = tuple(neighbour.word for neighbour in found[:count])
    return replace(concept, replacements=concept.replacements + nearest)
