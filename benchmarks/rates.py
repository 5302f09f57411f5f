"""Whether the automatic learning rate suits models of other sizes: ``python -m benchmarks.rates``.

The automatic rate was measured on EmojiCanvas. For other models it is proportional to the typical
size of their weights. On each of five models, two concepts with two seeds run at the automatic rate
and at a quarter, half, twice and four times this rate. The automatic rate suits a model if its UA
is at least 0.95 and its harmonic mean within 0.02 of the best of the five rates, as means over the
four runs. ``python -m demo.widths`` trains two of the models; without them, the others run alone.
Each finished run writes a JSON record into ``benchmarks/results/rates``; a run with a record is
skipped. ``--table`` prints the table of the runs so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.quality import PICTURES, Task, harmonic_mean, perform, read
from benchmarks.records import Record
from demo.jobs import DIGITS_MODEL, EMOJI, FLOW, job_settings
from demo.widths import CHANNELS, folder
from unlearn_core.job.console import say
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "rates"
MODELS = {
    "emoji": EMOJI,
    "digits": DIGITS_MODEL,
    "flow": FLOW,
    **{width: folder(width) for width in CHANNELS},
}
CONCEPTS = ("ink", "cat")  # a style and an object
OF_DIGITS = ("two", "eight")
SEEDS = (0, 1)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
LEAST_FORGOTTEN, LARGEST_LOSS = 0.95, 0.02


def concepts(model: str) -> tuple[str, ...]:
    return OF_DIGITS if model == "digits" else CONCEPTS


def automatic_settings(model: str) -> UnlearnSettings:
    """The automatic settings of a model, with all numbers."""
    job = job_settings(concepts(model)[0], UnlearnSettings(), MODELS[model])
    return resolved(job.unlearn, load_model(MODELS[model]))


def tasks(model: str, factor: float, settings: UnlearnSettings) -> list[Task]:
    """The runs of a model at ``factor`` times the automatic rate.

    Args:
        settings: the automatic settings of this model, with all numbers.
    """
    rate = float(f"{settings.learning_rate * factor:.2e}")
    return [
        Task(
            _name(model, concept, factor, seed),
            concept,
            seed,
            replace(settings, learning_rate=rate, seed=seed),
            PICTURES,
            folder=RESULTS,
            model=MODELS[model],
        )
        for seed in SEEDS
        for concept in concepts(model)
    ]


def _name(model: str, concept: str, factor: float, seed: int) -> str:
    return f"{model}-{concept}-{factor:g}-{seed}"


def records(model: str, factor: float) -> list[Record]:
    """The records of a model at a factor; the model itself need not be there."""
    files = [
        RESULTS / f"{_name(model, concept, factor, seed)}.json"
        for seed in SEEDS
        for concept in concepts(model)
    ]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def table() -> str:
    """UA and harmonic mean at each rate, and whether the automatic rate suits the model."""
    factors = " | ".join(f"× {factor:g}" for factor in FACTORS)
    lines = [
        f"| model | automatic rate | {factors} | suits |",
        "| --- |" + " --- |" * (len(FACTORS) + 2),
    ]
    for model in MODELS:
        runs = {factor: records(model, factor) for factor in FACTORS}
        if not all(len(found) == len(SEEDS) * len(concepts(model)) for found in runs.values()):
            continue
        ua = {factor: _mean_accuracy(found) for factor, found in runs.items()}
        mean = {factor: _harmonic_mean(found) for factor, found in runs.items()}
        rate = runs[1.0][0]["settings"]["learning_rate"]
        cells = " | ".join(f"{ua[factor]:.3f}, {mean[factor]:.3f}" for factor in FACTORS)
        suits = ua[1.0] >= LEAST_FORGOTTEN and mean[1.0] >= max(mean.values()) - LARGEST_LOSS
        lines.append(f"| {model} | {rate:g} | {cells} | {'yes' if suits else '**no**'} |")
    return "\n".join(lines)


def _mean_accuracy(found: Sequence[Record]) -> float:
    return statistics.mean(record["after"]["unlearning_accuracy"] for record in found)


def _harmonic_mean(found: Sequence[Record]) -> float:
    return statistics.mean(harmonic_mean(record["after"]) for record in found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args()
    if options.table:
        say(table())
        return
    for model in options.models:
        if not MODELS[model].is_dir():
            say(f"{model}: not trained; run `python -m demo.widths {model}` first")
            continue
        settings = automatic_settings(model)
        # The automatic rate first, so that an early look shows what matters most.
        for factor in sorted(FACTORS, key=lambda factor: factor != 1):
            for task in tasks(model, factor, settings):
                if read(task) is None:
                    say(task.name)
                    perform(task, "cpu")


if __name__ == "__main__":
    main()
