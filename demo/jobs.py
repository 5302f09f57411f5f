"""The demo models' jobs: prompts and settings for each concept."""

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
EMOJI, FLOW, DIGITS_MODEL = MODELS / "emoji-canvas", MODELS / "emoji-canvas-flow", MODELS / "digits"
CANVASES = {"emoji": EMOJI, "flow": FLOW}
"""The text-to-image models by the name of their architecture: Stable Diffusion 1 and 3."""


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


def job_settings(concept: str, unlearn: UnlearnSettings, model: Path = EMOJI) -> JobSettings:
    """The demo's job for a style or object of EmojiCanvas, or for a digit.

    Args:
        model: one of ``CANVASES``; a digit has its own model.

    For a digit, the settings that suit a model without text are overridden.

    Raises:
        ValueError: the demo models do not know the concept.
    """
    if concept in STYLES:
        return JobSettings(
            model=model,
            concept=ForgetConcept(concept, "style", (), _others(STYLES, concept)),
            prompts=PromptSettings(
                STYLE_TEMPLATES, {"object": OBJECTS, "background": BACKGROUNDS}, seed=unlearn.seed
            ),
            unlearn=unlearn,
        )
    if concept in OBJECTS:
        return JobSettings(
            model=model,
            concept=ForgetConcept(concept, "object", (), _others(OBJECTS, concept)),
            prompts=PromptSettings(
                OBJECT_TEMPLATES, {"style": STYLES, "background": BACKGROUNDS}, seed=unlearn.seed
            ),
            unlearn=unlearn,
        )
    if concept in DIGITS:
        # The model sees only the class, whatever the wording.
        unlearn = replace(unlearn, retain_weight=5.0, negative_guidance=0.5)
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
    raise ValueError(
        f"concept must be one that the demo models know, got {concept!r}; choose one of {known}"
    )


def _others(words: tuple[str, ...], without: str) -> tuple[str, ...]:
    return tuple(word for word in words if word != without)
