"""The main job on the demo model: forget one concept, evaluate, save. ``python run.py demo``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from unlearn_core.cli import CACHE, Bars, say
from unlearn_core.concepts import ForgetConcept
from unlearn_core.dataset import LatentCache
from unlearn_core.evaluation.report import summary, table
from unlearn_core.job import Job
from unlearn_core.settings import UnlearnSettings
from unlearn_core.settings_file import JobSettings, PromptSettings

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


def main() -> int:
    defaults = UnlearnSettings()
    parser = argparse.ArgumentParser(prog="python run.py demo", description=__doc__)
    parser.add_argument("--concept", default="ink", help="style, object or digit (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="(%(default)s)")
    options = parser.parse_args()
    bars = Bars()
    try:
        unlearn = replace(defaults, steps=options.steps, seed=options.seed)
        settings = job_settings(options.concept, unlearn)
        job = Job(settings, options.out, cache=LatentCache(CACHE), on_progress=bars)
        unlearned = job.unlearn()
        report = job.evaluate(unlearned)
        job.save(unlearned)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        bars.close()
    say(f"\n{table(report)}\n\n{summary(report)}")
    took = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in job.seconds.items())
    say(f"It cost {sum(job.seconds.values()):.0f} s: {took}.")
    say(f"Look at {options.out / 'report.html'}; the model is in {options.out / 'model'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
