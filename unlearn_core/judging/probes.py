"""Probes: attempts to bring the concept back after unlearning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..dataset.drawing import LatentCache
from ..foundation.progress import Progress
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from ..unlearning.results import UnlearnedModel
from .adversarial import Words
from .curves import Attack, Attempt, Curve, Target, run_curve
from .evaluators import Evaluators
from .image_to_image import ImageToImage
from .new_words import Inversion, SoftTokens
from .relearning import FineTuning
from .settings import ALL, NONE, QUICK, THOROUGH, WORDINGS, ProbeSettings
from .wordings import long_prompts, misspellings, other_languages, paraphrases

INVERSION, RELEARNING = "textual inversion", "relearning from ten pictures"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The result of a probe.

    Attributes:
        name: of the probe.
        shown_before: number of pictures with the concept if the base model is probed in the same
            way; None if no evaluator can judge. If it is 0, the probe fails even there and proves
            nothing.
        shown_after: the same for the unlearned model.
        prompts: the prompts of the pictures.
        pictures: of the unlearned model, uint8 [N, 3, H, W]; of a curve, at its worst point.
    """

    name: str
    shown_before: int | None
    shown_after: int | None
    prompts: tuple[str, ...]
    pictures: Tensor

    @property
    def before(self) -> float | None:
        """The share before, 0..1."""
        return None if self.shown_before is None else self.shown_before / len(self.prompts)

    @property
    def after(self) -> float | None:
        """The share after, 0..1."""
        return None if self.shown_after is None else self.shown_after / len(self.prompts)


@dataclass(frozen=True)
class Rewording:
    """Other prompts with the concept. They take no effort, so there is a single attempt."""

    name: str
    rewrite: Callable[[ForgetConcept, Sequence[PromptPair]], list[str]]
    efforts: tuple[int, ...] = (0,)
    unit: str = ""

    def attempts(self, target: Target) -> Iterator[Attempt]:
        prompts = self.rewrite(target.pairs.concept, target.tests)
        yield target.attempt(target.model, prompts, 0, f"with {self.name}")


REWORDINGS: Mapping[str, Attack] = {
    "paraphrases": Rewording("paraphrases", paraphrases),
    "misspellings": Rewording("misspellings", misspellings),
    "long prompts": Rewording("long prompts", long_prompts),
}
OTHER_LANGUAGES = Rewording("other languages", other_languages)
PROBES = (*REWORDINGS, INVERSION, RELEARNING)
"""The probes with a single figure."""


def single_attacks(settings: ProbeSettings) -> dict[str, Attack]:
    """The attack of each of ``PROBES``."""
    efforts = (settings.steps,)
    return {
        **REWORDINGS,
        INVERSION: Inversion(INVERSION, 1, settings.examples, efforts),
        RELEARNING: FineTuning(RELEARNING, settings.examples, efforts=efforts),
    }


CURVES: tuple[Attack, ...] = (
    Inversion(INVERSION),
    Inversion(f"{INVERSION}, 2 words", vectors=2),
    Inversion(f"{INVERSION}, 4 words", vectors=4),
    FineTuning("relearning from one picture", 1),
    FineTuning("relearning from three pictures", 3),
    FineTuning(RELEARNING, 10),
    FineTuning("full fine-tuning on one picture", 1, full=True),
    FineTuning("full fine-tuning on three pictures", 3, full=True),
    FineTuning("full fine-tuning on ten pictures", 10, full=True),
    FineTuning("fine-tuning on unrelated pictures", 40, full=True, unrelated=True),
    SoftTokens("adversarial search, free embeddings"),
    Words("adversarial search, words"),
    ImageToImage("image to image, neutral prompt", neutral=True),
    ImageToImage("image to image, concept's prompt", neutral=False),
)
"""The attacks of which the whole curve is of interest."""
QUICK_ATTACKS = tuple(single_attacks(ProbeSettings()).values())
ATTACKS: Mapping[str, tuple[Attack, ...]] = {
    NONE: (),
    QUICK: QUICK_ATTACKS,
    THOROUGH: (*REWORDINGS.values(), OTHER_LANGUAGES, *CURVES),
    WORDINGS: tuple(REWORDINGS.values()),
    ALL: QUICK_ATTACKS,
}
"""The attacks of each value of ``EvaluationSettings.probes``."""


def run_probe(
    name: str,
    unlearned: UnlearnedModel,
    evaluators: Evaluators,
    settings: ProbeSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe the unlearned model, and its base for comparison, for the concept of
    ``unlearned.pairs``. Further concepts in ``unlearned.pairs.also`` are ignored.

    Args:
        name: one of ``PROBES``.
        cache: for the base model's pictures.
        progress: checked often; it does not tick.

    Raises:
        UnsupportedError: the model does not support this probe.
        ValueError: an unknown probe.
    """
    if name not in PROBES:
        raise ValueError(f"probe must be one of {', '.join(PROBES)}, got {name!r}")
    attack = single_attacks(settings)[name]
    curve = run_curve(attack, unlearned, evaluators, settings, cache=cache, progress=progress)
    return as_probe(curve)


def as_probe(curve: Curve) -> ProbeResult:
    """The probe of a curve's name, at the number of steps that quick probes take."""
    point = curve.at(ProbeSettings().steps) or curve.points[0]
    return ProbeResult(
        curve.name, point.shown_before, point.shown_after, curve.prompts, curve.pictures
    )
