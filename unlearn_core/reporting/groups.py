"""The pictures in the order in which a person looks at them: the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..evaluation.results import AlignmentReport, PictureFacts

MOST_SHOWN = 24  # pairs of a group in a report


@dataclass(frozen=True, eq=False)
class Pair:
    """One prompt's pictures before and after, uint8 [3, H, W]."""

    prompt: str
    before: Tensor
    after: Tensor
    facts: PictureFacts


@dataclass(frozen=True, eq=False)
class Group:
    """Pairs of one kind.

    Attributes:
        key: ``"forget"``, ``"neighbours"`` or ``"rest"``.
        pairs: at most ``MOST_SHOWN``, the worst first.
        total: how many there are in all.
    """

    key: str
    title: str
    pairs: tuple[Pair, ...]
    total: int


def groups(report: AlignmentReport) -> tuple[Group, ...]:
    """What asks for one concept, for its neighbours, and for everything else."""
    name, near = report.concept.name, report.neighbours
    asked = _pairs(report, ("forget",))
    kept = _pairs(report, ("retain train", "retain test"))
    close = [pair for pair in kept if pair.facts.replacement in near]
    rest = [pair for pair in kept if pair.facts.replacement not in near]
    # What still shows comes first, then what changed least: there the concept may be left.
    asked.sort(key=lambda pair: (not pair.facts.shows_after, pair.facts.change or 0.0))
    found = [
        _group("forget", f"Asked for {name!r}", asked),
        _group("neighbours", f"What looks most like it: {', '.join(near)}", close),
        _group("rest", "Everything else", rest),
    ]
    return tuple(group for group in found if group.pairs)


def _pairs(report: AlignmentReport, names: Sequence[str]) -> list[Pair]:
    pairs = []
    for name in names:
        part = report.comparisons[name]
        rows = zip(part.prompts, part.before, part.after, part.facts, strict=True)
        pairs += [Pair(*row) for row in rows]
    return sorted(pairs, key=lambda pair: -(pair.facts.change or 0.0))


def _group(key: str, title: str, pairs: Sequence[Pair]) -> Group:
    return Group(key, title, tuple(pairs[:MOST_SHOWN]), len(pairs))
