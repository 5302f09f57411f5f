"""Settings of the prompts: arguments of ``diversify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..foundation.checks import require_words
from .concept import ForgetConcept
from .presets import PRESETS

COUNTS = {  # field -> the least it may be
    "train_count": 1,
    "test_count": 1,
    "invented_names": 0,
    "gibberish_names": 0,
    "neighbours": 0,
    "seed": 0,
}


@dataclass(frozen=True)
class PromptSettings:
    """Arguments of ``diversify``; where ``templates`` or ``dimensions`` are left out, those of the
    preset for the concept's kind. ``file`` is a prompt set to read in place of all others.

    Attributes:
        neighbours: how many of the ``candidates`` join the replacements, those that look most like
            the concept; see ``with_neighbours``.
    """

    templates: tuple[str, ...] = ()
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    train_count: int = 240
    test_count: int = 64
    test_share: float = 0.25
    invented_names: int = 0
    gibberish_names: int = 0
    neighbours: int = 0
    candidates: tuple[str, ...] = ()
    seed: int = 0
    file: Path | None = None

    def __post_init__(self) -> None:
        require_words("templates", self.templates)
        require_words("candidates", self.candidates)
        if not isinstance(self.dimensions, Mapping):
            raise ValueError(f"dimensions must be an object, got {self.dimensions!r:.80}")
        for name, values in self.dimensions.items():
            require_words(f"dimensions.{name}", values)
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
        if not isinstance(self.test_share, (int, float)) or isinstance(self.test_share, bool):
            raise ValueError(f"test_share must be a number, got {self.test_share!r}")
        if self.file is not None and not isinstance(self.file, (str, Path)):
            raise ValueError(f"file must be the name of a file, got {self.file!r}")
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
