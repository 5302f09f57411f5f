"""Settings of an evaluation and of a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset.settings import GenerationSettings
from ..foundation.checks import check_whole, require
from ..foundation.fields import check_fields, choice, other, whole

PROBE_CHOICES: tuple[str, ...] = ("none", "wordings", "all")
"""No probe; other wordings; these and those that train."""


FIRST_SEED = 1_000_000  # apart from those that unlearning trained on


def _check_scorer(field: str, value: object) -> None:
    path = value is None or isinstance(value, (str, Path))
    require(path, field, value, "the path of a folder")


@dataclass(frozen=True)
class EvaluationSettings:
    """How many pictures an evaluation draws of each kind of prompt, and how."""

    pictures: int = whole(
        64,
        least=1,
        offered=10_000,
        help="Pictures of each of three kinds of prompts, drawn by both models: the concept's own "
        "(with words that were held back), what is kept (as trained), and what is kept (held "
        "back). More gives figures that you can trust more, and takes longer; 8 are enough for a "
        "look.",
    )
    generation: GenerationSettings = field(
        default_factory=lambda: GenerationSettings(seed=FIRST_SEED),
        metadata=other(
            "an object",
            help="How it draws, with the fields of `generation`, which count where one is left "
            f"out; but its first seed is {FIRST_SEED}, apart from those that unlearning uses.",
        ),
    )
    scorer: Path | None = field(
        default=None,
        metadata=other(
            "the path of a folder",
            _check_scorer,
            help="Folder of an open_clip model that judges the pictures. Without it, the one that "
            "the model's own folder brings along.",
        ),
    )
    probes: str = choice(
        PROBE_CHOICES[0],
        PROBE_CHOICES,
        help="Whether the concept comes back when somebody tries. 'none' does not try. "
        "'wordings': paraphrases, misspellings and long prompts, as much work again. 'all': also "
        "a new word that is taught to mean the concept (textual inversion), and further training "
        "on ten of its pictures, which takes several times as long.",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ProbeSettings:
    """How hard a probe tries.

    Attributes:
        pictures: drawn to see what came back.
        examples: pictures of the concept that the training probes learn from.
        steps: of their training.
        generation: the sampler; its seeds are apart from those of unlearning and evaluation.
    """

    pictures: int = 32
    examples: int = 10
    steps: int = 60
    generation: GenerationSettings = field(
        default_factory=lambda: GenerationSettings(seed=2_000_000)
    )

    def __post_init__(self) -> None:
        for name in ("pictures", "examples", "steps"):
            check_whole(name, getattr(self, name), 1)
