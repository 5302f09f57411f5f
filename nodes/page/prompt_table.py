"""The pairs of prompts as the page's table has them, before anything is drawn and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...unlearn_core.prompts.concept import ForgetConcept
from ...unlearn_core.prompts.diversify import diversify, parse_dimensions
from ...unlearn_core.prompts.files import (
    read_prompt_file,
    read_prompts,
    require_concept,
    write_prompts,
)
from ...unlearn_core.prompts.pairs import PromptPairs
from ...unlearn_core.prompts.settings import MOST_NAMES, MOST_PAIRS
from ..host.folders import prompts_path
from ..inputs.concept import concept_of
from ..inputs.prompts import ALL_PRESETS, NO_FILE

MOST = {
    "train_count": MOST_PAIRS,
    "test_count": MOST_PAIRS,
    "invented_names": MOST_NAMES,
    "gibberish_names": MOST_NAMES,
}

FOUND_BY_RUN = {"neighbours": 0, "language_model": NO_FILE}  # input -> where nothing is to be found


def grid(
    preset: str, templates: str, dimensions: str
) -> tuple[list[str], Mapping[str, tuple[str, ...]]]:
    """The templates and dimensions from the two fields; an empty field gets the preset's.

    Raises:
        ValueError: an unknown preset, or unreadable dimensions.
    """
    if preset not in ALL_PRESETS:
        raise ValueError(f"preset must be one of {', '.join(ALL_PRESETS)}, got {preset!r}")
    defaults = ALL_PRESETS[preset]
    return (
        templates.splitlines() if templates.strip() else list(defaults.templates),
        parse_dimensions(dimensions) if dimensions.strip() else defaults.dimensions,
    )


def read_edited(text: str, concept: ForgetConcept) -> PromptPairs:
    """The prompts that the table has kept.

    Raises:
        ValueError: what is no set of prompts, or one for another concept.
    """
    pairs = read_prompts(text)
    require_concept(pairs, concept, "the edited table", "press Start over above it")
    return pairs


def as_table(pairs: PromptPairs) -> dict[str, Any]:
    """What ``read_edited`` reads, as JSON has it."""
    return json.loads(write_prompts(pairs))


def preview(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The table for the widgets of Define Forget Concept and of Diversify Retain Prompts.

    Args:
        asked: under "concept" and "prompts", values by the names of the widgets.

    Raises:
        ValueError, KeyError, TypeError: what the nodes would refuse too, and words that only a run
            can find.
    """
    concept = concept_of(**asked["concept"])
    given = asked["prompts"]
    if given["edited_prompts"]:
        return as_table(read_edited(given["edited_prompts"], concept))
    if given["prompts_file"] != NO_FILE:
        return as_table(read_prompt_file(prompts_path(given["prompts_file"]), concept))
    for name, nothing in FOUND_BY_RUN.items():
        if given[name] != nothing:
            raise ValueError(
                f"{name}: a run finds the words, which takes a model: run this node once, and the "
                f"prompts come here, to be read and edited; or set {name} to {nothing!r}"
            )
    for name, most in MOST.items():  # which ComfyUI itself checks when a graph is queued
        if not isinstance(given[name], int) or not 0 <= given[name] <= most:
            raise ValueError(f"{name} must be a whole number up to {most}, got {given[name]!r:.80}")
    templates, dimensions = grid(given["preset"], given["templates"], given["dimensions"])
    return as_table(
        diversify(
            concept,
            templates,
            dimensions,
            test_share=given["test_share"],
            seed=given["seed"],
            **{name: given[name] for name in MOST},
        )
    )
