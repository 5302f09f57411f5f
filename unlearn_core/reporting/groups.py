"""Groups of picture pairs for the report, the worst pairs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..evaluation.results import AlignmentReport, PictureFacts

MOST_PAIRS = 24  # of a group in a report


@dataclass(frozen=True, eq=False)
class Pair:
    """One prompt's pictures before and after unlearning, uint8 [3, H, W]."""

    prompt: str
    before: Tensor
    after: Tensor
    facts: PictureFacts


@dataclass(frozen=True, eq=False)
class Group:
    """Pairs of one kind.

    Attributes:
        key: ``"forget"``, ``"neighbours"`` or ``"rest"``.
        pairs: at most ``MOST_PAIRS``, the worst first.
        total: number of all pairs of this kind.
    """

    key: str
    title: str
    pairs: tuple[Pair, ...]
    total: int


def groups(report: AlignmentReport) -> tuple[Group, ...]:
    """The pairs of one concept, of its neighbours, and of everything else; without empty groups."""
    name, near = report.concept.name, report.neighbours
    forget = _pairs(report, ("forget",))
    retain = _pairs(report, ("retain train", "retain test"))
    neighbours = [pair for pair in retain if pair.facts.replacement in near]
    rest = [pair for pair in retain if pair.facts.replacement not in near]
    # Pictures that still show the concept come first, then the least changed ones, in which the
    # judge may have missed the concept.
    forget.sort(key=lambda pair: (not pair.facts.shows_after, pair.facts.change or 0.0))
    all_groups = [
        _group("forget", f"Prompts with {name!r}", forget),
        _group("neighbours", f"Most similar to it: {', '.join(near)}", neighbours),
        _group("rest", "Everything else", rest),
    ]
    return tuple(group for group in all_groups if group.pairs)


def _pairs(report: AlignmentReport, names: Sequence[str]) -> list[Pair]:
    pairs = []
    for name in names:
        part = report.comparisons[name]
        rows = zip(part.prompts, part.before, part.after, part.facts, strict=True)
        pairs += [Pair(*row) for row in rows]
    return sorted(pairs, key=lambda pair: -(pair.facts.change or 0.0))


def _group(key: str, title: str, pairs: Sequence[Pair]) -> Group:
    return Group(key, title, tuple(pairs[:MOST_PAIRS]), len(pairs))
