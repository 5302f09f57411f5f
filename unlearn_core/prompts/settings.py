"""Settings of the prompts: arguments of ``diversify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..foundation.checks import require_words
from ..foundation.fields import Range, check_fields, number, other, whole
from .concept import ForgetConcept
from .presets import PRESETS

MOST_PAIRS, MOST_NAMES = 10_000, 100  # that a form offers


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
    """Arguments of ``diversify``; where ``templates`` or ``dimensions`` are left out, those of the
    preset for the concept's kind."""

    templates: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            require_words,
            help="Prompts to build on. {concept} stands for what is to be forgotten and must be "
            "in each; other {words} stand for the dimensions. Without any, the preset for the "
            "concept's kind.",
        ),
    )
    dimensions: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=other(
            "lists of texts by name",
            _check_dimensions,
            help="What to vary: two or more values of each dimension. Without any, the preset for "
            "the concept's kind.",
        ),
    )
    train_count: int = whole(
        240,
        least=1,
        offered=MOST_PAIRS,
        help="Pairs to unlearn with. Two pictures are drawn for each: more takes longer, and "
        "keeps the rest safer.",
    )
    test_count: int = whole(
        64,
        least=1,
        offered=MOST_PAIRS,
        help="Pairs to evaluate with. Prompts alone cost nothing; how many pictures are drawn is "
        "a setting of the evaluation.",
    )
    test_share: float = number(
        0.25,
        offered=Range(0.05, 0.95, 0.05),
        help="Share of each dimension's values that only test prompts use. The evaluation then "
        "shows whether unlearning carries over to words it never saw. More makes the test harder "
        "and the training poorer.",
    )
    seed: int = whole(
        0,
        least=0,
        offered=2**32 - 1,
        help="Shuffles the prompts and chooses the words that are held back. The same seed gives "
        "the same prompts.",
    )
    invented_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="How many names of artists who never lived may take the concept's place. With them "
        "the model learns to let go of one name and not of everything that sounds like a name.",
        advanced=True,
    )
    gibberish_names: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="How many meaningless words may take the concept's place.",
        advanced=True,
    )
    neighbours: int = whole(
        0,
        least=0,
        offered=MOST_NAMES,
        help="How many of the candidates join the replacements: those whose pictures look most "
        "like the concept's. What looks like the concept suffers first when it is forgotten. A "
        "few pictures are drawn of each candidate; CLIP compares them.",
        advanced=True,
    )
    candidates: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts", require_words, help="Words to choose neighbours from.", advanced=True
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=other(
            "the name of a file",
            _check_file,
            help="A file of prompts, which takes the place of all other fields here.",
            advanced=True,
        ),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.file is not None:
            usual = PromptSettings()
            for name in (other.name for other in fields(self) if other.name != "file"):
                if getattr(self, name) != getattr(usual, name):
                    raise ValueError(f"file holds whole prompts already: leave {name} out")
        if self.neighbours and not self.candidates:
            raise ValueError("candidates: none given for neighbours to choose from, write some")

    def grid(self, concept: ForgetConcept) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
        """Templates and dimensions."""
        preset = PRESETS[concept.kind]
        return self.templates or preset.templates, self.dimensions or preset.dimensions
