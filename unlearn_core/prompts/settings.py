"""Settings of the prompts: arguments of ``diversify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..foundation.checks import require_words
from ..foundation.fields import Range, check_fields, number, other, whole
from .concept import ForgetConcept
from .presets import PRESETS

MOST_PAIRS, MOST_NAMES = 10_000, 100  # upper limits in forms


def _check_dimensions(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, got {value!r:.80}")
    for dimension, values in value.items():
        require_words(f"{name}.{dimension}", values)


def _check_file(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, Path)):
        raise ValueError(f"{name} must be the name of a file, got {value!r}")


@dataclass(frozen=True)
class PromptSettings:
    """Arguments of ``diversify``. Empty ``templates`` or ``dimensions`` are taken from the preset
    for the concept's kind."""

    templates: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            require_words,
            help="Templates for the prompts. Each must contain {concept}; other {words} are the "
            "names of dimensions. If empty, the preset for the concept's kind is used.",
        ),
    )
    dimensions: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=other(
            "lists of texts by name",
            _check_dimensions,
            help="The parts of the prompts to vary, each with two or more values. If empty, the "
            "preset for the concept's kind is used.",
        ),
    )
    train_count: int = whole(
        240,
        least=1,
        offered=MOST_PAIRS,
        help="Number of prompt pairs for unlearning. Two pictures are generated for each pair: "
        "more pairs take longer and preserve everything else better.",
    )
    test_count: int = whole(
        64,
        least=1,
        offered=MOST_PAIRS,
        help="Number of prompt pairs for the evaluation. Prompts alone cost no time; the number of "
        "pictures is a setting of the evaluation.",
    )
    test_share: float = number(
        0.25,
        offered=Range(0.05, 0.95, 0.05),
        help="Share of each dimension's values that only test prompts use. With them the "
        "evaluation shows whether unlearning carries over to words that were not trained on. A "
        "larger share makes the test stricter and leaves fewer words for training.",
    )
    seed: int = whole(
        0,
        least=0,
        offered=2**32 - 1,
        help="Determines the order of the prompts and the words held out for testing. The same "
        "seed gives the same prompts.",
    )
    invented_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of made-up artists' names that are used as further replacements. They teach "
        "the model to forget this one name and not everything that sounds like a name.",
        advanced=True,
    )
    gibberish_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of meaningless words that are used as further replacements.",
        advanced=True,
    )
    neighbours: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of candidates to add to the replacements: those whose pictures look most "
        "like the concept's, which unlearning damages first. To find them, a few pictures of each "
        "candidate are generated and compared by CLIP.",
        advanced=True,
    )
    candidates: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            require_words,
            help="Words from which the neighbours are chosen.",
            advanced=True,
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=other(
            "the name of a file",
            _check_file,
            help="A file of prompts. It replaces all other fields of this section.",
            advanced=True,
        ),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.file is not None:
            defaults = PromptSettings()
            for name in (other.name for other in fields(self) if other.name != "file"):
                if getattr(self, name) != getattr(defaults, name):
                    raise ValueError(f"file contains complete prompts: leave {name} out")
        if self.neighbours and not self.candidates:
            raise ValueError("candidates: none given to choose neighbours from; add some words")

    def grid(self, concept: ForgetConcept) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
        """The templates and dimensions, from the preset for the concept's kind if empty."""
        preset = PRESETS[concept.kind]
        return self.templates or preset.templates, self.dimensions or preset.dimensions
