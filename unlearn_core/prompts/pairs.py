"""Pairs of prompts, with the concept and without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .concept import ForgetConcept


@dataclass(frozen=True)
class PromptPair:
    """A prompt that asks for the concept and its parallel that does not.

    Attributes:
        forget: mentions the concept.
        retain: the same prompt with ``replacement`` in the concept's place.
        replacement: empty where the concept was dropped, see ``ForgetConcept.replaced_in``.
        values: dimension -> the value that both prompts hold.
    """

    forget: str
    retain: str
    replacement: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class PromptPairs:
    """The diversified prompts of one concept, train and test built from disjoint values.

    Attributes:
        also: prompts of further concepts that the same run forgets, see ``together``.
    """

    concept: ForgetConcept
    train: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    dimensions: Mapping[str, tuple[str, ...]]
    also: tuple[PromptPairs, ...] = ()

    @property
    def each(self) -> tuple[PromptPairs, ...]:
        """One prompt set a concept; the first is this one."""
        return (self, *self.also)


def repetition(concept: ForgetConcept, pairs: Sequence[PromptPair]) -> str:
    """What to tell of pairs that are there more than once; empty where all differ, and for a class,
    whose model reads no prompt."""
    different = len({(pair.forget, pair.retain) for pair in pairs})
    if different == len(pairs) or concept.kind == "class":
        return ""
    return (
        f"only {different} of the {len(pairs)} pairs differ, the others repeat them; further "
        "wordings or values make more"
    )


def together(first: PromptPairs, second: PromptPairs) -> PromptPairs:
    """The prompts of a run that forgets the concepts of both.

    Raises:
        ValueError: a concept that is in both, or that the other's retain prompts hold on to.
    """
    everything = (*first.each, *second.each)
    for one, other in itertools.permutations(everything, 2):
        if one.concept.is_mentioned_in(other.concept.name):
            raise ValueError(f"concept: {other.concept.name!r} is to be forgotten twice")
        for pair in (*other.train, *other.test):
            if one.concept.is_mentioned_in(pair.retain):
                raise ValueError(
                    f"prompts: {pair.retain!r} is to be kept, but {one.concept.name!r} is to be "
                    f"forgotten too; take it out of the replacements or dimensions of "
                    f"{other.concept.name!r}"
                )
    return replace(first, also=tuple(replace(part, also=()) for part in everything[1:]))


def folded(value: str) -> str:
    """A value as text encoders read it, to whom "Cat" is "cat"."""
    return " ".join(value.split()).casefold()


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    """The first of those that are read as the same."""
    found: dict[str, str] = {}
    for value in values:
        found.setdefault(folded(value), value)
    return tuple(found.values())


def without_diversity(pairs: PromptPairs) -> PromptPairs:
    """As many train pairs, all equal to the first, for each concept."""
    also = tuple(without_diversity(part) for part in pairs.also)
    return replace(pairs, train=pairs.train[:1] * len(pairs.train), also=also)
