"""The paper's Table 7 in small, on a flow-matching model: ``python -m benchmarks.flow``.

EmojiCanvas-Flow has the architecture of Stable Diffusion 3. Ours runs at its automatic settings,
without a search. Each baseline has more denoiser passes, the same number for all, and a small
search on two concepts that are not scored, over learning rate, retain weight and scope. Each
finished run writes a JSON record into ``benchmarks/results/flow``, and a run with a record is
skipped. So the benchmark can be interrupted and resumed, and divided among processes (``--part
0/2``, ``--part 1/2``). ``--table`` prints the tables of the runs so far.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.chance import interval, spread
from benchmarks.methods import UCE_WEIGHTS
from benchmarks.quality import (
    FORGOTTEN,
    PICTURES,
    SEEDS,
    TIERS,
    TUNING_PICTURES,
    Task,
    perform,
    read,
    search_among,
    slug,
)
from benchmarks.records import (
    BEFORE,
    COLUMNS,
    SHARES,
    SUMMARY,
    Record,
    before,
    by_concept,
    cell,
    recorded_passes,
)
from demo.jobs import FLOW
from unlearn_core.job.console import say
from unlearn_core.models.layers import ATTENTION, FULL, TEXT_PATH
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.objectives import ERASE, RANDOM_LABEL
from unlearn_core.unlearning.recipes import OURS, from_recipe
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "flow"
TUNED_ON = ("pixel", "rabbit")  # a style and an object
CONCEPTS = TIERS["small"]
BUDGET, PAIRS = 2880, 32
"""A baseline's denoiser passes for training, and its pairs of pictures: twice and 1.4 times as many
as ours."""
BEST = 2  # candidates of a search that also run on the second concept
GAP_OF_SHARES, GAP_OF_ALIGNMENT = 0.02, 0.005  # largest changes that the bar allows
Runs = dict[tuple[str, int], Record]
"""A method's scored runs by concept and seed."""


@dataclass(frozen=True)
class Baseline:
    """A recipe and the grid of its search. Scopes: that of its authors first, then the text path,
    the only scope in which the model forgot anything in a trial."""

    recipe: str
    scopes: tuple[str, ...]
    weights: tuple[float, ...]
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


BASELINES = {
    "RGD": Baseline("RGD (paper)", (FULL, TEXT_PATH), (1.0, 5.0)),
    "GradDiff": Baseline("GradDiff", (FULL, TEXT_PATH), (1.0, 5.0)),
    "SalUn": Baseline("SalUn", (FULL, TEXT_PATH), (0.1, 1.0)),
    "ESD": Baseline("ESD-x", (ATTENTION, TEXT_PATH), (0.0,)),
    "UCE": Baseline("UCE", (TEXT_PATH,), UCE_WEIGHTS, (1.0,)),  # the rate has no effect
}
METHODS = (*BASELINES, OURS)
"""In an order that ``--part`` divides into two halves of about the same duration."""

FORGET_PASSES = {"redirect": 5, "ascent": 3, RANDOM_LABEL: 4, ERASE: 5}
RETAIN_PASSES = {"distill": 4, "denoise": 3}
WITH_BACKWARD = 3  # passes of a prediction that is differentiated
FORGET_ONLY = "forget only"


def passes_per_row(settings: UnlearnSettings) -> int:
    """Denoiser passes that a method needs for each row of a batch: 3 for each prediction that is
    differentiated and 1 for each prediction of a target.

    Ours: 5 to redirect and 4 to distil. RGD and GradDiff: 3 + 3. SalUn: 4 + 3. ESD: 5, because it
    has no retain loss; the loop computes one all the same, for its report.
    """
    retain = 0 if settings.method == FORGET_ONLY else RETAIN_PASSES[settings.retain_objective]
    return FORGET_PASSES[settings.objective] + retain


def passes_of_mask(settings: UnlearnSettings) -> int:
    """Denoiser passes for SalUn's mask: one gradient over the whole forget set."""
    return WITH_BACKWARD * settings.picture_pairs if settings.saliency < 1 else 0


def steps_within(budget: int, settings: UnlearnSettings) -> int:
    """Largest number of steps whose denoiser passes, with those of the mask, are at most
    ``budget``."""
    return (budget - passes_of_mask(settings)) // (settings.batch_size * passes_per_row(settings))


def passes_needed(record: Record) -> int:
    """Denoiser passes for drawing and unlearning, without those of a retain loss that the method
    does not have."""
    settings, passes = record["settings"], recorded_passes(record)
    if settings["method"] != FORGET_ONLY:
        return passes
    unused = RETAIN_PASSES[settings["retain_objective"]]
    return passes - unused * settings["steps"] * settings["batch_size"]


@functools.cache
def automatic() -> UnlearnSettings:
    """The automatic settings, with all numbers."""
    return resolved(UnlearnSettings(), load_model(FLOW))


def candidates(method: str) -> list[UnlearnSettings]:
    """The grid of a baseline's search. All train on pictures that are drawn as those of ours, in
    batches of the same size and within the same budget."""
    ours, baseline = automatic(), BASELINES[method]
    shared = {
        "batch_size": ours.batch_size,
        "picture_pairs": PAIRS,
        "picture_steps": ours.picture_steps,
    }
    grid = [
        from_recipe(
            baseline.recipe, **shared, scope=scope, learning_rate=rate, retain_weight=weight
        )
        for scope in baseline.scopes
        for rate in baseline.rates
        for weight in baseline.weights
    ]
    return [replace(settings, steps=steps_within(BUDGET, settings)) for settings in grid]


def search(method: str) -> tuple[list[Task], UnlearnSettings | None]:
    """The tasks of a method's search, and its result if they are complete. Ours has none."""
    if method == OURS:
        return [], automatic()
    tuning_task = functools.partial(_tuning_task, method)
    return search_among(candidates(method), TUNED_ON, tuning_task, BEST)


def _tuning_task(method: str, concept: str, settings: UnlearnSettings) -> Task:
    values = f"{slug(settings.scope)}-{settings.learning_rate:g}-{settings.retain_weight:g}"
    name = f"tune-{concept}-{slug(method)}-{values}"
    return Task(name, concept, 0, settings, TUNING_PICTURES, folder=RESULTS, model=FLOW)


def scored_tasks(method: str) -> list[Task]:
    """The runs on the scored concepts; empty until the method is tuned."""
    settings = search(method)[1]
    if settings is None:
        return []
    return [
        Task(
            f"{concept}-{slug(method)}-{seed}",
            concept,
            seed,
            replace(settings, seed=seed),
            PICTURES,
            folder=RESULTS,
            model=FLOW,
        )
        for seed in SEEDS
        for concept in CONCEPTS
    ]


def open_tasks(methods: Sequence[str]) -> list[Task]:
    """The runs without a record: the searches first, then concept by concept, so that an early
    table compares all methods."""
    tuning = [task for method in methods for task in search(method)[0]]
    scored = [task for method in methods for task in scored_tasks(method)]
    scored.sort(key=lambda task: (task.seed, CONCEPTS.index(task.concept)))
    return [task for task in tuning + scored if read(task) is None]


def records(method: str) -> Runs:
    """A method's scored runs so far."""
    return {
        (task.concept, task.seed): record
        for task in scored_tasks(method)
        if (record := read(task)) is not None
    }


def table() -> str:
    """The original model, the methods, and the differences between ours and the others."""
    runs = {method: of_method for method in METHODS if (of_method := records(method))}
    if OURS not in runs:
        return f"there is no record of {OURS} yet; run the benchmark first"
    lines = [
        f"| method | runs | scope | {' | '.join(SUMMARY)} | passes |",
        "| --- |" + " --- |" * (len(SUMMARY) + 3),
        _row_of_original(list(runs[OURS].values())),
    ]
    for method, of_method in runs.items():
        values = list(of_method.values())
        cells = [cell(name, by_concept(values, COLUMNS[name])) for name in SUMMARY]
        count = f"{len(values)} of {len(scored_tasks(method))}"
        passes = f"{statistics.mean(map(passes_needed, values)):,.0f}"
        scope = values[0]["settings"]["scope"]
        lines.append(f"| {method} | {count} | {scope} | {' | '.join(cells)} | {passes} |")
    return "\n\n".join(("\n".join(lines), _differences(runs), _bar(runs)))


def _row_of_original(ours: list[Record]) -> str:
    """The shares of the original model; the other figures are changes."""
    shares = (*SHARES, "harmonic mean")
    cells = [cell(name, by_concept(ours, before(COLUMNS[name]))) for name in shares]
    cells += ["–"] * (len(SUMMARY) - len(shares))
    return f"| {BEFORE} | | | {' | '.join(cells)} | |"


def _differences(runs: dict[str, Runs]) -> str:
    """Mean difference in each figure over the runs of the same concept and seed."""
    lines = [
        "Differences over runs of the same concept and seed: mean, 95 % interval",
        "",
        f"| | pairs | {' | '.join(SUMMARY)} |",
        "| --- |" + " --- |" * (len(SUMMARY) + 1),
    ]
    for method, others in runs.items():
        pairs = [(run, others[key]) for key, run in runs[OURS].items() if key in others]
        if method == OURS or len(pairs) < 2:
            continue
        cells = []
        for name in SUMMARY:
            values = [(COLUMNS[name](one), COLUMNS[name](other)) for one, other in pairs]
            gains = [a - b for a, b in values if a is not None and b is not None]
            cells.append(interval(gains) if len(gains) > 1 else "–")
        lines.append(f"| {OURS}, less {method} | {len(pairs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bar(runs: dict[str, Runs]) -> str:
    """Whether ours, as a mean over the concepts, meets the bar that was set beforehand."""
    after = {
        method: {
            name: spread(by_concept(list(of_method.values()), COLUMNS[name])).mean
            for name in SUMMARY
        }
        for method, of_method in runs.items()
    }
    ours = after.pop(OURS)
    changes = [
        ours[name] - spread(by_concept(list(runs[OURS].values()), before(COLUMNS[name]))).mean
        for name in ("IRA", "CRA")
    ]
    mean = "harmonic mean"
    met = {
        f"UA at least {FORGOTTEN}": ours["UA"] >= FORGOTTEN,
        f"IRA and CRA within {GAP_OF_SHARES} of before": max(map(abs, changes)) <= GAP_OF_SHARES,
        f"alignment, test within {GAP_OF_ALIGNMENT} of before": (
            abs(ours["alignment, test"]) <= GAP_OF_ALIGNMENT
        ),
        f"{mean} above all others": all(ours[mean] > other[mean] for other in after.values()),
    }
    return "; ".join(f"{name}: {'yes' if value else '**no**'}" for name, value in met.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", default="0/1", help="index of this process / their number")
    options = parser.parse_args()
    if options.table:
        say(table())
        return
    part, parts = map(int, options.part.split("/"))
    # Whole methods are distributed, because the runs of a method depend on its search.
    mine = [method for i, method in enumerate(options.methods) if i % parts == part]
    failed: set[str] = set()
    while waiting := [task for task in open_tasks(mine) if task.name not in failed]:
        say(f"{len(waiting)} open: {waiting[0].name}")
        try:
            perform(waiting[0], options.device)
        except ValueError as error:  # training broke down; the other methods continue
            failed.add(waiting[0].name)
            say(f"failed: {waiting[0].name} ({error})")
    if failed:
        raise SystemExit(f"failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
