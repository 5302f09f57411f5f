"""The page's table of prompt pairs: its content before a run, and the user's edits."""

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

# Inputs that need a model, with the value at which they need none.
NEED_MODEL = {"neighbours": 0, "language_model": NO_FILE}


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
    """Read the edited prompts from the input that stores them.

    Raises:
        ValueError: the text is not a set of prompts, or is one for another concept.
    """
    pairs = read_prompts(text)
    require_concept(pairs, concept, "the edited table", "press Start over above it")
    return pairs


def as_table(pairs: PromptPairs) -> dict[str, Any]:
    """The pairs as the JSON object that the page's table shows and ``read_edited`` reads."""
    return json.loads(write_prompts(pairs))


def preview(request: Mapping[str, Any]) -> dict[str, Any]:
    """The table for the widgets of Define Forget Concept and of Diversify Retain Prompts.

    Args:
        request: values by widget name, under "concept" and "prompts".

    Raises:
        ValueError, KeyError, TypeError: values that the nodes would refuse too, or prompts that
            need a model.
    """
    concept = concept_of(**request["concept"])
    widgets = request["prompts"]
    if widgets["edited_prompts"]:
        return as_table(read_edited(widgets["edited_prompts"], concept))
    if widgets["prompts_file"] != NO_FILE:
        return as_table(read_prompt_file(prompts_path(widgets["prompts_file"]), concept))
    for name, neutral in NEED_MODEL.items():
        if widgets[name] != neutral:
            raise ValueError(
                f"{name}: finding the words needs a model. Run this node once, and then read and "
                f"edit the prompts here; or set {name} to {neutral!r}"
            )
    for name, most in MOST.items():  # ComfyUI checks these only when a graph is queued
        if not isinstance(widgets[name], int) or not 0 <= widgets[name] <= most:
            raise ValueError(
                f"{name} must be a whole number from 0 to {most}, got {widgets[name]!r:.80}"
            )
    templates, dimensions = grid(widgets["preset"], widgets["templates"], widgets["dimensions"])
    return as_table(
        diversify(
            concept,
            templates,
            dimensions,
            test_share=widgets["test_share"],
            seed=widgets["seed"],
            **{name: widgets[name] for name in MOST},
        )
    )
