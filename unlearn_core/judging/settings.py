"""Settings of an evaluation and of a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset.settings import GenerationSettings
from ..foundation.checks import check_choice, check_whole, require

PROBE_CHOICES: tuple[str, ...] = ("none", "wordings", "all")
"""No probe; other wordings; these and those that train."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How many pictures an evaluation draws of each kind of prompt, and how.

    Attributes:
        pictures: pictures of each of forget, retain train and retain test prompts.
        generation: the sampler; its seeds are apart from those that unlearning trained on.
        scorer: folder of an open_clip model; default: what the model's own folder carries.
        probes: which ways of asking for the concept after all are tried, one of ``PROBE_CHOICES``.
    """

    pictures: int = 64
    generation: GenerationSettings = field(
        default_factory=lambda: GenerationSettings(seed=1_000_000)
    )
    scorer: Path | None = None
    probes: str = PROBE_CHOICES[0]

    def __post_init__(self) -> None:
        check_whole("pictures", self.pictures, 1)
        path = self.scorer is None or isinstance(self.scorer, (str, Path))
        require(path, "scorer", self.scorer, "the path of a folder")
        check_choice("probes", self.probes, PROBE_CHOICES)


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
