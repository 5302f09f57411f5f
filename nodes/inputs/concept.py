"""A concept as the widgets of Define Forget Concept have it."""

from __future__ import annotations

from ...unlearn_core.prompts.concept import ForgetConcept


def concept_of(concept: str, kind: str, synonyms: str, replacements: str) -> ForgetConcept:
    """The concept that the widgets describe.

    Raises:
        ValueError: an empty concept, or an unknown kind.
    """
    return ForgetConcept(concept.strip(), kind, words_of(synonyms), words_of(replacements))


def words_of(text: str) -> tuple[str, ...]:
    """The words between the commas, each once."""
    return tuple(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))
