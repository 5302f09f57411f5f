"""Conversion of the widgets of Define Forget Concept to a concept."""

from __future__ import annotations

from ...unlearn_core.prompts.concept import ForgetConcept


def concept_of(concept: str, kind: str, synonyms: str, replacements: str) -> ForgetConcept:
    """Build the concept from its widget values.

    Raises:
        ValueError: an empty concept, or an unknown kind.
    """
    return ForgetConcept(concept.strip(), kind, split_words(synonyms), split_words(replacements))


def split_words(text: str) -> tuple[str, ...]:
    """Split at commas; empty and repeated words are dropped."""
    return tuple(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))
