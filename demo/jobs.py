"""The demo models' jobs: which prompts they take for a concept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unlearn_core.job.settings_file import JobSettings
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.settings import PromptSettings
from unlearn_core.unlearning.settings import UnlearnSettings

from .digits import DIGITS
from .world import BACKGROUNDS, OBJECTS, STYLES

MODELS = Path(__file__).parent / "models"
EMOJI, DIGITS_MODEL = MODELS / "emoji-canvas", MODELS / "digits"


STYLE_TEMPLATES = (
    "a {object} in {concept} style on a {background} background",
    "a {object} drawn in {concept} style, {background} background",
    "{concept} style {object}",
)
OBJECT_TEMPLATES = (
    "a {concept} in {style} style on a {background} background",
    "a {concept} drawn in {style} style, {background} background",
    "{style} style {concept}",
)
DIGIT_WORDINGS = ("digit", "number", "handwritten", "a picture of")


def job_settings(concept: str, unlearn: UnlearnSettings) -> JobSettings:
    """The demo's job for a style or object of EmojiCanvas, or a digit.

    The digits model overrules the scope and what goes with it.

    Raises:
        ValueError: the demo world knows no such concept.
    """
    if concept in STYLES:
        return JobSettings(
            model=EMOJI,
            concept=ForgetConcept(concept, "style", (), _others(STYLES, concept)),
            prompts=PromptSettings(
                STYLE_TEMPLATES, {"object": OBJECTS, "background": BACKGROUNDS}, seed=unlearn.seed
            ),
            unlearn=unlearn,
        )
    if concept in OBJECTS:
        return JobSettings(
            model=EMOJI,
            concept=ForgetConcept(concept, "object", (), _others(OBJECTS, concept)),
            prompts=PromptSettings(
                OBJECT_TEMPLATES, {"style": STYLES, "background": BACKGROUNDS}, seed=unlearn.seed
            ),
            unlearn=unlearn,
        )
    if concept in DIGITS:
        # A class has only its name: wordings differ for the reader, not for the model. And it has
        # no cross-attention, so all of the model is taught, in steps that push further.
        unlearn = replace(
            unlearn, scope="full", learning_rate=5e-4, retain_weight=5.0, negative_guidance=0.5
        )
        return JobSettings(
            model=DIGITS_MODEL,
            concept=ForgetConcept(concept, "class", (), _others(DIGITS, concept)),
            prompts=PromptSettings(
                ("{wording} {concept}",), {"wording": DIGIT_WORDINGS}, seed=unlearn.seed
            ),
            unlearn=unlearn,
        )
    groups = {"styles": STYLES, "objects": OBJECTS, "digits": DIGITS}
    known = "; ".join(f"{name}: {', '.join(words)}" for name, words in groups.items())
    raise ValueError(f"concept must be one that the demo model knows, got {concept!r} ({known})")


def _others(words: tuple[str, ...], without: str) -> tuple[str, ...]:
    return tuple(word for word in words if word != without)
