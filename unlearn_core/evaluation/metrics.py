"""Figures from the observations in the pictures. Each figure is the mean of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..foundation.devices import in_float64
from ..judging.evaluators import Observations
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from .bootstrap import Interval, bootstrap, share_interval
from .results import Metrics

RETAIN_GROUPS = ("retain train", "retain test")


@dataclass(frozen=True, eq=False)
class Sample:
    """The values per picture of which a figure is the mean: ``score.sum() / total.sum()``.

    Attributes:
        score: number of correct answers, or any other score, [N].
        total: number of answers, 1 or more, [N]; 1 for other scores.
        is_share: whether ``score`` counts answers.
    """

    score: Tensor
    total: Tensor
    is_share: bool = True

    @property
    def mean(self) -> float:
        return (self.score.sum() / self.total.sum()).item()

    @property
    def interval(self) -> Interval:
        """The interval of the mean."""
        if self.is_share:
            return share_interval(self.score, self.total)
        return bootstrap(self.score / self.total, self.total)


def scores(values: Tensor) -> Sample:
    """A sample of one score per picture, [N]."""
    return Sample(in_float64(values), torch.ones(len(values)).double(), is_share=False)


def samples(
    concept: ForgetConcept,
    pairs: Mapping[str, Sequence[PromptPair]],
    observations: Mapping[str, Observations],
    known: Sequence[str],
) -> dict[str, Sample]:
    """The sample of each figure in ``Metrics`` that can be measured, by its name there.

    Args:
        pairs, observations: for each of ``GROUPS``.
        known: the values of the concept's kind that the judge recognizes.
    """
    shows = observations["forget"].shows(concept) or ()
    result = {
        "unlearning_accuracy": _share([(not shown, 1) for shown in shows]),
        "in_domain_retain": _share(
            [
                (value == pair.replacement, 1)
                for name in RETAIN_GROUPS
                for value, pair in zip(
                    observations[name].values.get(concept.kind, ()), pairs[name], strict=False
                )
                if pair.replacement in known
            ]
        ),
        "cross_domain_retain": _share(
            [
                count
                for name in RETAIN_GROUPS
                for count in _content(concept, pairs[name], observations[name])
            ]
        ),
        "cross_domain_forget": _share(_content(concept, pairs["forget"], observations["forget"])),
        **{
            f"alignment_{name.replace(' ', '_')}": scores(side.alignment)
            for name, side in observations.items()
            if side.alignment is not None
        },
    }
    return {name: sample for name, sample in result.items() if sample is not None}


def as_metrics(
    by_name: Mapping[str, Sample], forget: Observations, concept: ForgetConcept
) -> Metrics:
    """The means of the samples; figures without a sample are None.

    Args:
        forget: the observations for the forget prompts.
    """
    shows = forget.shows(concept)
    means = {f.name: by_name[f.name].mean if f.name in by_name else None for f in fields(Metrics)}
    count = None if shows is None else sum(shows)
    return Metrics(**{**means, "concept_shown": count, "pictures": forget.pictures})


def _content(
    concept: ForgetConcept, pairs: Sequence[PromptPair], observations: Observations
) -> list[tuple[int, int]]:
    """For each picture, the number of values in its prompt that it shows, and the number of all
    values in its prompt. Values of the concept's own kind ("a cat next to a {object}") do not
    count, since a judge cannot distinguish them from the concept."""
    dimensions = [name for name in observations.values if name != concept.kind]
    counts = []
    for i, pair in enumerate(pairs):
        names = [name for name in dimensions if name in pair.values]
        correct = sum(observations.values[name][i] == pair.values[name] for name in names)
        counts.append((correct, len(names)))
    return counts


def _share(counts: Sequence[tuple[int, int]]) -> Sample | None:
    rows = [(correct, total) for correct, total in counts if total]
    if not rows:
        return None
    correct, total = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return Sample(correct, total)
