"""Settings of an evaluation and of its probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..dataset.settings import GenerationSettings
from ..foundation.checks import check_whole, require
from ..foundation.fields import check_fields, choice, other, whole

NONE, QUICK, THOROUGH = PROBE_CHOICES = ("none", "quick", "thorough")
WORDINGS, ALL = EARLIER_CHOICES = ("wordings", "all")
"""Choices of earlier versions, in saved workflows and settings files: only the rewordings, and the
same as ``QUICK``."""


FIRST_SEED = 1_000_000  # differs from the seeds of the training pictures


def _check_scorer(field: str, value: object) -> None:
    path = value is None or isinstance(value, (str, Path))
    require(path, field, value, "the path of a folder")


@dataclass(frozen=True)
class EvaluationSettings:
    """The number of pictures per kind of prompt, and how they are generated and judged."""

    pictures: int = whole(
        64,
        least=1,
        offered=10_000,
        help="Number of pictures for each of three kinds of prompts: test prompts with the "
        "concept, training prompts without it, and test prompts without it. Both models draw all "
        "of them. More pictures give more reliable figures, but take longer; 8 are enough for a "
        "first impression.",
    )
    generation: GenerationSettings = field(
        default_factory=lambda: GenerationSettings(seed=FIRST_SEED),
        metadata=other(
            "an object",
            help="How the evaluation's pictures are generated. The fields are those of "
            "`generation`, whose values are the defaults; only the first seed is "
            f"{FIRST_SEED} by default, so that no training picture is repeated.",
        ),
    )
    scorer: Path | None = field(
        default=None,
        metadata=other(
            "the path of a folder",
            _check_scorer,
            help="Folder of an open_clip model that judges the pictures. Without it, the CLIP in "
            "the model's own folder is used, if there is one.",
        ),
    )
    probes: str = choice(
        NONE,
        PROBE_CHOICES,
        also=EARLIER_CHOICES,
        help="Attempts to bring the concept back, each also with the model before unlearning. "
        "'none': no attempts. 'quick': paraphrases, misspellings, long prompts, a new word that is "
        "trained to mean the concept (textual inversion), and training on ten pictures. The "
        "evaluation takes about three times as long. 'thorough': phrases of six other languages, "
        "and recovery curves, each at several efforts: 1, 2 and 4 new words; training on 1, 3 and "
        "10 pictures, also of all weights; unrelated pictures; a search for adversarial prompts; "
        "image to image. It takes about 30 times as long, which is hours for a model of full size; "
        "choose fewer pictures.",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ProbeSettings:
    """The extent of a probe.

    Attributes:
        pictures: number of pictures to judge.
        examples: number of pictures of the concept for the probes that train.
        steps: training steps of those probes.
        generation: the sampler; its seeds differ from those of unlearning and evaluation.
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
