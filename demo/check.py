"""Accuracy of a text-to-image demo model: ``python -m demo.check`` draws 500 prompts and classifies
them."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from demo import never_knew
from demo.build import EMOJI, FLOW
from demo.widths import CHANNELS, folder
from demo.world import FULL_CAPTIONS, fill_caption, random_subject
from unlearn_core.dataset.drawing import draw_latents
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.job.console import Bars, say
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model
from unlearn_core.reporting.grids import picture_strip

MODELS = {
    "emoji": EMOJI,
    "flow": FLOW,
    **{width: folder(width) for width in CHANNELS},
    **{f"never-knew-{concept}": never_knew.folder(concept) for concept in never_knew.CONCEPTS},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.check", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="emoji")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--picture", type=Path, help="also save the first 12 here")
    options = parser.parse_args()
    model = load_model(MODELS[options.model])
    judge = ConvJudge.load(EMOJI / "evaluation")
    rng = random.Random(5)
    subjects = [random_subject(rng) for _ in range(options.count)]
    prompts = [fill_caption(rng.choice(FULL_CAPTIONS), subject) for subject in subjects]
    bars = Bars()
    with bars.phase("drawing", len(prompts)):
        latents = draw_latents(model, prompts, GenerationSettings(seed=5_000_000), progress=bars)
    bars.close()
    images = model.decode_latents(latents)
    predictions = judge.classify(images)
    accuracy = {
        name: sum(v == getattr(s, name) for v, s in zip(values, subjects, strict=True))
        / len(subjects)
        for name, values in predictions.items()
    }
    if options.picture:
        picture_strip(images[:12]).save(options.picture)
    say(json.dumps({"prompts": len(prompts), "accuracy": accuracy}))


if __name__ == "__main__":
    main()
