"""Conversion of a node's widgets to a concept, and the check of its word before a run."""

from __future__ import annotations

from ...unlearn_core.foundation.lists import split_list
from ...unlearn_core.prompts.concept import ForgetConcept


def concept_of(concept: str, kind: str, synonyms: str, replacements: str) -> ForgetConcept:
    """Build the concept from its widget values.

    Raises:
        ValueError: an empty concept, or an unknown kind.
    """
    return ForgetConcept(concept.strip(), kind, split_list(synonyms), split_list(replacements))


def check_concept(concept: str | None) -> bool | str:
    """The answer of ``validate_inputs``: True, or the message for the user. None is a linked value,
    known only when the node runs."""
    try:
        if concept is not None:
            ForgetConcept(concept)
    except ValueError as error:
        return str(error)
    return True
