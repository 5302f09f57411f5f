"""A contest: ours and baselines on one model, within a number of denoiser passes.

Ours runs at its automatic settings, without a search. Each baseline has the same number of passes
and a small search on two concepts that are not scored, over learning rate, retain weight and scope.
Each finished run writes a JSON record, and a run with a record is skipped.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.chance import interval
from benchmarks.quality import (
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
from unlearn_core.job.console import say
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.objectives import (
    ERASE,
    PREFER,
    PRIOR,
    RANDOM_LABEL,
    UNINFORMATIVE,
)
from unlearn_core.unlearning.recipes import OURS, from_recipe
from unlearn_core.unlearning.settings import UnlearnSettings

CONCEPTS = TIERS["small"]
BEST = 2  # candidates of a search that also run on the second concept
Runs = dict[tuple[str, int], Record]
"""A method's scored runs by concept and seed."""

FORGET_PASSES = {
    "redirect": 5,
    "ascent": 3,
    "NPO": 4,
    RANDOM_LABEL: 4,
    ERASE: 5,
    PREFER: 8,
    UNINFORMATIVE: 4,
}
RETAIN_PASSES = {"distill": 4, "denoise": 3, PRIOR: 4}
WITH_BACKWARD = 3  # passes of a prediction that is differentiated
FORGET_ONLY, RETAIN_ONLY = "forget only", "retain only"


def passes_per_row(settings: UnlearnSettings) -> int:
    """Denoiser passes that a method needs for each row of a batch: 3 for each prediction that is
    differentiated and 1 for each prediction of a target.

    Ours: 5 to redirect and 4 to distil. RGD and GradDiff: 3 + 3. SalUn and NPO: 4 + 3. ESD: 5,
    because it has no retain loss; fine-tuning: 3, because it has no forget loss.
    """
    return sum(_passes_of_losses(settings)) - _unused_passes(settings)


def _passes_of_losses(settings: UnlearnSettings) -> tuple[int, int]:
    return FORGET_PASSES[settings.objective], RETAIN_PASSES[settings.retain_objective]


def _unused_passes(settings: UnlearnSettings) -> int:
    """Passes per row of a loss that the method does not have. The loop computes it all the same,
    for its report."""
    forget, retain = _passes_of_losses(settings)
    return {FORGET_ONLY: retain, RETAIN_ONLY: forget}.get(settings.method, 0)


def passes_of_mask(settings: UnlearnSettings) -> int:
    """Denoiser passes for SalUn's mask: one gradient over the whole forget set."""
    return WITH_BACKWARD * settings.picture_pairs if settings.saliency < 1 else 0


def steps_within(budget: int, settings: UnlearnSettings) -> int:
    """Largest number of steps whose denoiser passes, with those of the mask, are at most
    ``budget``."""
    return (budget - passes_of_mask(settings)) // (settings.batch_size * passes_per_row(settings))


def passes_needed(record: Record) -> int:
    """Denoiser passes for drawing and unlearning, without those of an unused loss."""
    settings = UnlearnSettings(**record["settings"])
    rows = settings.steps * settings.batch_size
    return recorded_passes(record) - rows * _unused_passes(settings)


@dataclass(frozen=True)
class Baseline:
    """A recipe and the grid of its search."""

    recipe: str
    scopes: tuple[str, ...]
    weights: tuple[float, ...]
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Contest:
    """A model and the methods that are compared on it.

    Attributes:
        results: folder of the records.
        tuned_on: the concepts of the search.
        budget: a baseline's denoiser passes for training; None for as many as ours needs.
        pairs: a baseline's pairs of pictures; None for as many as ours has.
        seeds: of the scored runs.
    """

    model: Path
    results: Path
    tuned_on: tuple[str, ...]
    baselines: Mapping[str, Baseline]
    budget: int | None = None
    pairs: int | None = None
    seeds: tuple[int, ...] = SEEDS

    @property
    def methods(self) -> tuple[str, ...]:
        return (*self.baselines, OURS)

    def candidates(self, method: str) -> list[UnlearnSettings]:
        """The grid of a baseline's search. All train on pictures that are drawn as those of ours,
        in batches of the same size and within the same budget."""
        ours, baseline = automatic(self.model), self.baselines[method]
        shared = {
            "batch_size": ours.batch_size,
            "picture_pairs": self.pairs or ours.picture_pairs,
            "picture_steps": ours.picture_steps,
        }
        grid = [
            from_recipe(
                baseline.recipe,
                **{**shared, "scope": scope, "learning_rate": rate, "retain_weight": weight},
            )
            for scope in baseline.scopes
            for rate in baseline.rates
            for weight in baseline.weights
        ]
        budget = self.budget or ours.steps * ours.batch_size * passes_per_row(ours)
        return [replace(each, steps=steps_within(budget, each)) for each in grid]

    def search(self, method: str) -> tuple[list[Task], UnlearnSettings | None]:
        """The tasks of a method's search, and its result if they are complete. Ours has none."""
        if method == OURS:
            return [], automatic(self.model)
        tuning_task = functools.partial(self._tuning_task, method)
        return search_among(self.candidates(method), self.tuned_on, tuning_task, BEST)

    def _tuning_task(self, method: str, concept: str, settings: UnlearnSettings) -> Task:
        values = f"{slug(settings.scope)}-{settings.learning_rate:g}-{settings.retain_weight:g}"
        name = f"tune-{concept}-{slug(method)}-{values}"
        return self._task(name, concept, settings, TUNING_PICTURES)

    def _task(self, name: str, concept: str, settings: UnlearnSettings, pictures: int) -> Task:
        seed = settings.seed
        return Task(name, concept, seed, settings, pictures, folder=self.results, model=self.model)

    def scored_tasks(self, method: str) -> list[Task]:
        """The runs on the scored concepts; empty until the method is tuned."""
        settings = self.search(method)[1]
        if settings is None:
            return []
        return [
            self._task(
                f"{concept}-{slug(method)}-{seed}", concept, replace(settings, seed=seed), PICTURES
            )
            for seed in self.seeds
            for concept in CONCEPTS
        ]

    def open_tasks(self, methods: Sequence[str]) -> list[Task]:
        """The runs without a record: the searches first, then concept by concept, so that an early
        table compares all methods."""
        tuning = [task for method in methods for task in self.search(method)[0]]
        scored = [task for method in methods for task in self.scored_tasks(method)]
        scored.sort(key=lambda task: (task.seed, CONCEPTS.index(task.concept)))
        return [task for task in tuning + scored if read(task) is None]

    def records(self) -> dict[str, Runs]:
        """The scored runs so far of each method that has any."""
        runs = {
            method: {
                (task.concept, task.seed): record
                for task in self.scored_tasks(method)
                if (record := read(task)) is not None
            }
            for method in self.methods
        }
        return {method: of_method for method, of_method in runs.items() if of_method}

    def table(self) -> str:
        """The original model, the methods, and the differences between ours and the others."""
        runs = self.records()
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
            count = f"{len(values)} of {len(self.scored_tasks(method))}"
            passes = f"{statistics.mean(map(passes_needed, values)):,.0f}"
            scope = values[0]["settings"]["scope"]
            lines.append(f"| {method} | {count} | {scope} | {' | '.join(cells)} | {passes} |")
        return "\n\n".join(("\n".join(lines), _differences(runs)))

    def perform_all(self, methods: Sequence[str], device: str) -> None:
        """Perform the open tasks of the methods.

        Raises:
            SystemExit: some have failed.
        """
        failed: set[str] = set()
        while waiting := [task for task in self.open_tasks(methods) if task.name not in failed]:
            say(f"{len(waiting)} open: {waiting[0].name}")
            try:
                perform(waiting[0], device)
            except ValueError as error:  # training broke down; the other methods continue
                failed.add(waiting[0].name)
                say(f"failed: {waiting[0].name} ({error})")
        if failed:
            raise SystemExit(f"failed: {', '.join(sorted(failed))}")

    def parser(self, module: str, description: str | None) -> argparse.ArgumentParser:
        """The command line of a contest's benchmark."""
        parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
        parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
        parser.add_argument(
            "--methods", nargs="+", default=list(self.methods), choices=self.methods
        )
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--part", default="0/1", help="index of this process / their number")
        return parser

    def main(self, module: str, description: str | None) -> None:
        """Run the tasks, or print the table of the runs so far."""
        options = self.parser(module, description).parse_args()
        if options.table:
            say(self.table())
        else:
            self.run(options)

    def run(self, options: argparse.Namespace) -> None:
        """Perform this process's part of the tasks. Whole methods are distributed, because the
        runs of a method depend on its search."""
        part, parts = map(int, options.part.split("/"))
        mine = [method for i, method in enumerate(options.methods) if i % parts == part]
        self.perform_all(mine, options.device)


@functools.cache
def automatic(model: Path) -> UnlearnSettings:
    """The automatic settings, with all numbers."""
    return resolved(UnlearnSettings(), load_model(model))


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
