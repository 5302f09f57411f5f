"""Figures from what was seen in the pictures, each with the pictures that it is a mean over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..judging.evaluators import Seen
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from .bootstrap import Interval, bootstrap, share_interval
from .results import Metrics

RETAINED = ("retain train", "retain test")


@dataclass(frozen=True, eq=False)
class Sample:
    """What a figure is the mean of, picture by picture: ``right.sum() / asked.sum()``.

    Attributes:
        right: [N].
        asked: of how many things in each picture, [N], 1 or more.
        is_share: whether ``right`` counts; else it is a score of any size.
    """

    right: Tensor
    asked: Tensor
    is_share: bool = True

    @property
    def mean(self) -> float:
        return (self.right.sum() / self.asked.sum()).item()

    @property
    def interval(self) -> Interval:
        """Of the mean."""
        if self.is_share:
            return share_interval(self.right, self.asked)
        return bootstrap(self.right / self.asked, self.asked)


def scores(values: Tensor) -> Sample:
    """The sample of one score a picture, [N]."""
    return Sample(values.double(), torch.ones(len(values)).double(), is_share=False)


def samples(
    concept: ForgetConcept,
    pairs: Mapping[str, Sequence[PromptPair]],
    seen: Mapping[str, Seen],
    known: Sequence[str],
) -> dict[str, Sample]:
    """The sample behind each figure of ``Metrics`` that could be had, by its name there.

    Args:
        pairs, seen: of each of ``GROUPS``.
        known: the values that the concept's judge can tell apart.
    """
    shows = seen["forget"].shows(concept) or ()
    found = {
        "unlearning_accuracy": _share([(not shown, 1) for shown in shows]),
        "in_domain_retain": _share(
            [
                (value == pair.replacement, 1)
                for name in RETAINED
                for value, pair in zip(
                    seen[name].values.get(concept.kind, ()), pairs[name], strict=False
                )
                if pair.replacement in known
            ]
        ),
        "cross_domain_retain": _share(
            [count for name in RETAINED for count in _content(concept, pairs[name], seen[name])]
        ),
        "cross_domain_forget": _share(_content(concept, pairs["forget"], seen["forget"])),
        **{
            f"alignment_{name.replace(' ', '_')}": scores(side.alignment)
            for name, side in seen.items()
            if side.alignment is not None
        },
    }
    return {name: sample for name, sample in found.items() if sample is not None}


def as_metrics(found: Mapping[str, Sample], forget: Seen, concept: ForgetConcept) -> Metrics:
    """The figures of the samples; what has none is None.

    Args:
        forget: what was seen under the forget prompts.
    """
    shows = forget.shows(concept)
    means = {f.name: found[f.name].mean if f.name in found else None for f in fields(Metrics)}
    shown = None if shows is None else sum(shows)
    return Metrics(**{**means, "concept_shown": shown, "pictures": forget.pictures})


def _content(
    concept: ForgetConcept, pairs: Sequence[PromptPair], seen: Seen
) -> list[tuple[int, int]]:
    """Of each picture, how many of its prompt's other values it shows, and of how many. What stands
    beside the concept and is of its own kind ("a cat next to a {object}") nobody can tell from it.
    """
    known = [name for name in seen.values if name != concept.kind]
    counts = []
    for i, pair in enumerate(pairs):
        asked = [name for name in known if name in pair.values]
        right = sum(seen.values[name][i] == pair.values[name] for name in asked)
        counts.append((right, len(asked)))
    return counts


def _share(counts: Sequence[tuple[int, int]]) -> Sample | None:
    asked = [(right, of) for right, of in counts if of]
    if not asked:
        return None
    right, of = torch.tensor(asked, dtype=torch.float64).unbind(1)
    return Sample(right, of)
