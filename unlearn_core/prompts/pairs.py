"""Pairs of prompts with and without the concept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .concept import ForgetConcept


@dataclass(frozen=True)
class PromptPair:
    """A prompt with the concept, and its parallel prompt without it.

    Attributes:
        forget: the prompt that mentions the concept.
        retain: the same prompt with ``replacement`` in the concept's place.
        replacement: empty if the concept was removed, see ``ForgetConcept.replaced_in``.
        values: dimension -> its value, which both prompts contain.
    """

    forget: str
    retain: str
    replacement: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class PromptPairs:
    """The diversified prompts of one concept; train and test prompts use disjoint values.

    Attributes:
        also: the prompts of further concepts that the same run forgets, see ``together``.
    """

    concept: ForgetConcept
    train: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    dimensions: Mapping[str, tuple[str, ...]]
    also: tuple[PromptPairs, ...] = ()

    @property
    def each(self) -> tuple[PromptPairs, ...]:
        """One prompt set per concept; the first is this one."""
        return (self, *self.also)


def repetition(concept: ForgetConcept, pairs: Sequence[PromptPair]) -> str:
    """A message about repeated pairs; empty if all pairs differ, or if the concept is a class: its
    model reads only the class, not the prompt."""
    unique = len({(pair.forget, pair.retain) for pair in pairs})
    if unique == len(pairs) or concept.kind == "class":
        return ""
    return (
        f"only {unique} of the {len(pairs)} pairs differ, the others repeat them; add templates or "
        "values to get more"
    )


def together(first: PromptPairs, second: PromptPairs) -> PromptPairs:
    """The prompts of a run that forgets the concepts of both sets.

    Raises:
        ValueError: both contain the same concept, a retain prompt of one mentions a concept of the
            other, or one is a look.
    """
    everything = (*first.each, *second.each)
    for part in everything:
        if not part.concept.has_word:
            raise ValueError(
                f"concept: {part.concept.name!r} is a look, which pictures define and not prompts; "
                "forget it in a run of its own"
            )
    for one, other in itertools.permutations(everything, 2):
        if one.concept.is_mentioned_in(other.concept.name):
            raise ValueError(
                f"concept: {other.concept.name!r} mentions {one.concept.name!r}, which is also to "
                "be forgotten; remove one of them"
            )
        for pair in (*other.train, *other.test):
            if one.concept.is_mentioned_in(pair.retain):
                raise ValueError(
                    f"prompts: the retain prompt {pair.retain!r} mentions {one.concept.name!r}, "
                    "which is also to be forgotten; remove it from the replacements or dimensions "
                    f"of {other.concept.name!r}"
                )
    return replace(first, also=tuple(replace(part, also=()) for part in everything[1:]))


def folded(value: str) -> str:
    """A value in lower case with single spaces: text encoders read "Cat" as "cat"."""
    return " ".join(value.split()).casefold()


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    """The values without repetitions, compared by ``folded``; the first of equal values stays."""
    first: dict[str, str] = {}
    for value in values:
        first.setdefault(folded(value), value)
    return tuple(first.values())


def without_diversity(pairs: PromptPairs) -> PromptPairs:
    """The same number of train pairs for each concept, all equal to its first pair."""
    also = tuple(without_diversity(part) for part in pairs.also)
    return replace(pairs, train=pairs.train[:1] * len(pairs.train), also=also)
