"""From what was seen before and after to one concept's report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..judging.evaluators import Evaluators, Seen
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from .bootstrap import bootstrap
from .distance import cmmd
from .metrics import RETAINED, as_metrics, samples
from .results import GROUPS, AlignmentReport, Comparison, Estimate, PictureFacts

NEAREST = 1 / 4  # of the replacements


@dataclass(frozen=True, eq=False)
class Side:
    """What one model drew for all prompts, uint8 [N, 3, H, W], and what was seen in it."""

    pictures: Tensor
    seen: Seen


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
        pairs: of each of ``GROUPS``, equally many.
        prompts: those drawn, group by group.
    """
    count = len(pairs["forget"])
    rows = {name: slice(i * count, (i + 1) * count) for i, name in enumerate(GROUPS)}
    seen = [
        {name: side.seen.rows(its_rows) for name, its_rows in rows.items()}
        for side in (before, after)
    ]
    found = [samples(concept, pairs, side, evaluators.known(concept)) for side in seen]
    figures = [
        as_metrics(its_samples, side["forget"], concept)
        for its_samples, side in zip(found, seen, strict=True)
    ]
    facts = _facts(concept, [pair for name in GROUPS for pair in pairs[name]], before, after)
    comparisons = {
        name: Comparison(
            tuple(prompts[chosen]), before.pictures[chosen], after.pictures[chosen],
            tuple(facts[chosen]),
        )
        for name, chosen in rows.items()
    }  # fmt: skip
    distance, change, near = None, None, ()
    old, new = before.seen.embeddings, after.seen.embeddings  # [N, D]
    if old is not None and new is not None:
        retained = slice(count, None)
        distance = cmmd(old[retained], new[retained])
        change = _estimate(_changes(old[retained], new[retained]))
        kept = [pair for name in RETAINED for pair in pairs[name]]
        near = nearest_words(concept, old[rows["forget"]], old[retained], kept)
    return AlignmentReport(
        concept,
        figures[0],
        figures[1],
        comparisons,
        distance,
        picture_change=change,
        intervals={name: sample.interval for name, sample in found[1].items()},
        alignment_change={
            name: _estimate(sample.right - found[0][name].right)
            for name, sample in found[1].items()
            if not sample.is_share
        },
        neighbours=near,
        detections=_detections(seen[0]["forget"], seen[1]["forget"]),
        scorer=evaluators.scorer.name if evaluators.scorer else None,
        missing=evaluators.missing,
    )


def _facts(
    concept: ForgetConcept, pairs: Sequence[PromptPair], before: Side, after: Side
) -> list[PictureFacts]:
    old, new = before.seen, after.seen
    change = None
    if old.embeddings is not None and new.embeddings is not None:
        change = _changes(old.embeddings, new.embeddings)

    def at(values: Tensor | None, i: int) -> float | None:
        return None if values is None else values[i].item()

    shows = [side.shows(concept) or [None] * side.pictures for side in (old, new)]
    return [
        PictureFacts(
            pair.replacement, shows[0][i], shows[1][i], at(change, i),
            at(old.alignment, i), at(new.alignment, i),
        )
        for i, pair in enumerate(pairs)
    ]  # fmt: skip


def _changes(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine of unit vectors [N, D], row by row; rounding makes no picture closer than
    itself."""
    return (1 - (before * after).sum(1)).clamp(min=0)


def _estimate(values: Tensor) -> Estimate:
    return Estimate(values.double().mean().item(), bootstrap(values))


def _detections(before: Seen, after: Seen) -> dict[str, tuple[int, int]] | None:
    if before.detections is None or after.detections is None:
        return None
    old, new = (sum(side, Counter()) for side in (before.detections, after.detections))
    return {part: (old[part], new[part]) for part in sorted(old | new)}


def nearest_words(
    concept: ForgetConcept, forget: Tensor, retain: Tensor, pairs: Sequence[PromptPair]
) -> tuple[str, ...]:
    """The quarter of the replacements whose pictures look most like the concept's, nearest first:
    by the cosine of mean CLIP embeddings.

    Args:
        forget: embeddings of pictures of the concept before unlearning, [N, D].
        retain: of pictures of the retain prompts of ``pairs``, [M, D].

    Returns:
        At least one word; none where there is nothing to choose from.
    """
    drawn = [pair.replacement for pair in pairs]
    words = [word for word in concept.replacements if word in drawn]
    if len(words) < 2:
        return ()
    own = forget.mean(0)
    means = [
        retain[[i for i, other in enumerate(drawn) if other == word]].mean(0) for word in words
    ]
    nearness = torch.cosine_similarity(torch.stack(means), own[None], dim=1)  # [words]
    order = nearness.argsort(descending=True)[: math.ceil(len(words) * NEAREST)]
    return tuple(words[i] for i in order.tolist())
