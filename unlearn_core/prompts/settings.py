"""Settings of the prompts: arguments of ``diversify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..foundation.checks import LARGEST_SEED, LONGEST_WORD, require_words
from ..foundation.fields import Range, check_fields, number, other, whole
from .concept import ForgetConcept
from .presets import PRESETS

MOST_PAIRS, MOST_NAMES = 10_000, 100  # upper limits in forms


def _check_dimensions(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, got {value!r:.80}")
    for dimension, values in value.items():
        require_words(f"{name}.{dimension}", values, LONGEST_WORD)


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
            help="Templates for the prompts. Each must contain {concept}. Other {words} in braces "
            "are the names of dimensions. If empty, the preset for the concept's kind is used.",
        ),
    )
    dimensions: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=other(
            "lists of texts by name",
            _check_dimensions,
            help="The words to vary in the prompts: dimensions, each with two or more values. If "
            "empty, the preset for the concept's kind is used.",
        ),
    )
    train_count: int = whole(
        240,
        least=1,
        offered=MOST_PAIRS,
        help="Number of prompt pairs for unlearning. Two pictures are drawn for each pair. More "
        "pairs take longer, but protect everything else better.",
    )
    test_count: int = whole(
        64,
        least=1,
        offered=MOST_PAIRS,
        help="Number of prompt pairs for the evaluation. More pairs take no extra time: the "
        "evaluation has its own setting for the number of pictures.",
    )
    test_share: float = number(
        0.25,
        offered=Range(0.05, 0.95, 0.05),
        help="Share of the values of each dimension that appear only in test prompts, not in "
        "training. They show whether the model also forgets the concept in prompts with new words. "
        "A larger share makes the test stricter, but leaves fewer words for training.",
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="Sets the order of the prompts and chooses the words for the test. The same seed "
        "gives the same prompts.",
    )
    invented_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of made-up artists' names to add to the replacements. With them the model "
        "forgets only this one name, and not everything that sounds like a name.",
        advanced=True,
    )
    gibberish_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of meaningless words to add to the replacements.",
        advanced=True,
    )
    neighbours: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="Number of candidates to add to the replacements. The candidates that look most like "
        "the concept are added, because unlearning damages them first. To find them, the model "
        "draws a few pictures of each candidate, and CLIP compares them.",
        advanced=True,
    )
    candidates: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            require_words,
            help="Words to choose the neighbours from.",
            advanced=True,
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=other(
            "the name of a file",
            _check_file,
            help="A prompt file. It replaces all other fields of this section.",
            advanced=True,
        ),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.file is not None:
            defaults = PromptSettings()
            for name in (other.name for other in fields(self) if other.name != "file"):
                if getattr(self, name) != getattr(defaults, name):
                    raise ValueError(f"file contains complete prompts; leave {name} out")
        if self.neighbours and not self.candidates:
            raise ValueError(
                "candidates: there are none, but neighbours are chosen from them; add some words"
            )

    def grid(self, concept: ForgetConcept) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
        """The templates and dimensions, from the preset for the concept's kind if empty."""
        preset = PRESETS[concept.kind]
        return self.templates or preset.templates, self.dimensions or preset.dimensions
