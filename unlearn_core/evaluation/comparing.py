"""Build the report of one concept from the observations before and after unlearning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.devices import in_float64
from ..judging.evaluators import Evaluators, Observations
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from .bootstrap import bootstrap
from .distance import cmmd
from .metrics import RETAIN_GROUPS, as_metrics, samples
from .results import GROUPS, AlignmentReport, Comparison, Estimate, PictureFacts

NEAREST = 1 / 4  # of the replacements


@dataclass(frozen=True, eq=False)
class Side:
    """One model's pictures for all prompts, uint8 [N, 3, H, W], and the observations in them."""

    pictures: Tensor
    observations: Observations


def build_report(
    concept: ForgetConcept,
    pairs: Mapping[str, Sequence[PromptPair]],
    prompts: Sequence[str],
    before: Side,
    after: Side,
    evaluators: Evaluators,
) -> AlignmentReport:
    """One concept's report, without probes.

    Args:
        pairs: for each of ``GROUPS``, the same number of pairs.
        prompts: the prompts of the pictures, in the order of ``GROUPS``.
    """
    count = len(pairs["forget"])
    rows = {name: slice(i * count, (i + 1) * count) for i, name in enumerate(GROUPS)}
    old, new = (
        {name: side.observations.rows(selection) for name, selection in rows.items()}
        for side in (before, after)
    )
    known = evaluators.known_values(concept)
    old_samples, new_samples = (samples(concept, pairs, side, known) for side in (old, new))
    facts = _facts(concept, [pair for name in GROUPS for pair in pairs[name]], before, after)
    comparisons = {
        name: Comparison(
            tuple(prompts[part]), before.pictures[part], after.pictures[part], tuple(facts[part])
        )
        for name, part in rows.items()
    }  # fmt: skip
    distance, change, neighbours = None, None, ()
    x, y = before.observations.embeddings, after.observations.embeddings  # [N, D]
    if x is not None and y is not None:
        retain = slice(count, None)
        distance = cmmd(x[retain], y[retain])
        change = _estimate(_changes(x[retain], y[retain]))
        retain_pairs = [pair for name in RETAIN_GROUPS for pair in pairs[name]]
        neighbours = nearest_words(concept, x[rows["forget"]], x[retain], retain_pairs)
    return AlignmentReport(
        concept,
        as_metrics(old_samples, old["forget"], concept),
        as_metrics(new_samples, new["forget"], concept),
        comparisons,
        distance,
        picture_change=change,
        intervals={name: sample.interval for name, sample in new_samples.items()},
        alignment_change={
            name: _estimate(sample.score - old_samples[name].score)
            for name, sample in new_samples.items()
            if not sample.is_share
        },
        neighbours=neighbours,
        detections=_detections(old["forget"], new["forget"]),
        scorer=evaluators.scorer.name if evaluators.scorer else None,
        missing=evaluators.missing,
    )


def _facts(
    concept: ForgetConcept, pairs: Sequence[PromptPair], before: Side, after: Side
) -> list[PictureFacts]:
    old, new = before.observations, after.observations
    change = None
    if old.embeddings is not None and new.embeddings is not None:
        change = _changes(old.embeddings, new.embeddings)

    def item(values: Tensor | None, i: int) -> float | None:
        return None if values is None else values[i].item()

    shows = [side.shows(concept) or [None] * side.pictures for side in (old, new)]
    return [
        PictureFacts(
            pair.replacement, shows[0][i], shows[1][i], item(change, i),
            item(old.alignment, i), item(new.alignment, i),
        )
        for i, pair in enumerate(pairs)
    ]  # fmt: skip


def _changes(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine of unit vectors [N, D], row by row; negative rounding errors are clamped to 0."""
    return (1 - (before * after).sum(1)).clamp(min=0)


def _estimate(values: Tensor) -> Estimate:
    return Estimate(in_float64(values).mean().item(), bootstrap(values))


def _detections(before: Observations, after: Observations) -> dict[str, tuple[int, int]] | None:
    if before.detections is None or after.detections is None:
        return None
    old, new = (sum(side, Counter()) for side in (before.detections, after.detections))
    return {part: (old[part], new[part]) for part in sorted(old | new)}


def nearest_words(
    concept: ForgetConcept, forget: Tensor, retain: Tensor, pairs: Sequence[PromptPair]
) -> tuple[str, ...]:
    """The quarter of the replacements whose pictures look most like the concept's, nearest first,
    by the cosine of mean CLIP embeddings.

    Args:
        forget: embeddings of the forget pictures before unlearning, [N, D].
        retain: embeddings of the retain pictures, one for each of ``pairs``, [M, D].

    Returns:
        At least one word; empty for fewer than two replacements with pictures.
    """
    replacements = [pair.replacement for pair in pairs]
    words = [word for word in concept.replacements if word in replacements]
    if len(words) < 2:
        return ()
    own = forget.mean(0)
    means = [
        retain[[i for i, other in enumerate(replacements) if other == word]].mean(0)
        for word in words
    ]
    similarity = torch.cosine_similarity(torch.stack(means), own[None], dim=1)  # [words]
    order = similarity.argsort(descending=True)[: math.ceil(len(words) * NEAREST)]
    return tuple(words[i] for i in order.tolist())
