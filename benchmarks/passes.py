"""What fewer denoiser passes cost: ``python -m benchmarks.passes``.

The automatic settings need about 2,000 passes for drawing and unlearning, the thorough ones of the
main benchmark 26,000. The quick ones need less than 500; beside them stands the closed-form edit,
which needs none. All run on the same concepts, seeds and held-out prompts. Each finished run writes
a JSON record into ``benchmarks/results/passes``; a run with a record is skipped. ``--table`` prints
the comparisons of the runs so far.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.chance import interval
from benchmarks.quality import (
    PICTURES,
    SEEDS,
    THOROUGH,
    TIERS,
    Task,
    perform,
    read,
    slug,
    tuned,
)
from benchmarks.records import COLUMNS, SUMMARY, Record, recorded_passes
from demo.jobs import EMOJI
from unlearn_core.job.console import say
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.settings import QUICK, UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "passes"
CONCEPTS = (*TIERS["small"], *TIERS["unseen"])
AUTOMATIC, ALL, FEWEST, EDIT = NAMES = ("automatic", "thorough", "quick", "UCE")
COMPARED = (AUTOMATIC, ALL), (FEWEST, EDIT), (FEWEST, AUTOMATIC)


def settings() -> dict[str, UnlearnSettings]:
    """Setting by name, with all numbers. UCE has the weight that the main benchmark's search
    found."""
    edit = tuned(EDIT)
    assert edit is not None, "the records of the search are part of the repository"
    chosen = {
        AUTOMATIC: UnlearnSettings(),
        ALL: THOROUGH,
        FEWEST: UnlearnSettings(effort=QUICK),
        EDIT: edit,
    }
    model = load_model(EMOJI)
    return {name: resolved(each, model) for name, each in chosen.items()}


def tasks(name: str, chosen: UnlearnSettings) -> list[Task]:
    """All runs of one setting, seed by seed."""
    return [
        Task(f"{concept}-{slug(name)}-{seed}", concept, seed, replace(chosen, seed=seed), PICTURES,
             folder=RESULTS)
        for seed in SEEDS
        for concept in CONCEPTS
    ]  # fmt: skip


def table() -> str:
    """A comparison of each two settings that have at least two runs in common."""
    chosen = settings()
    parts = [_comparison(first, second, chosen) for first, second in COMPARED]
    return "\n\n".join(filter(None, parts)) or "there are too few records; run the benchmark first"


def _comparison(first: str, second: str, chosen: dict[str, UnlearnSettings]) -> str:
    """The means of two settings, and their paired differences with 95 % intervals."""
    found = list(_pairs(tasks(first, chosen[first]), tasks(second, chosen[second])))
    if len(found) < 2:
        return ""
    lines = [
        f"{len(found)} runs each",
        "",
        f"| figure | {first} | {second} | difference, 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    for name in SUMMARY:
        values = [(COLUMNS[name](one), COLUMNS[name](other)) for one, other in found]
        both = [(a, b) for a, b in values if a is not None and b is not None]
        lines.append(
            f"| {name} | {statistics.mean(a for a, _ in both):.4f} "
            f"| {statistics.mean(b for _, b in both):.4f} "
            f"| {interval([a - b for a, b in both])} |"
        )
    cells = [f"{statistics.mean(recorded_passes(pair[i]) for pair in found):,.0f}" for i in (0, 1)]
    lines.append(f"| denoiser passes for drawing and unlearning | {cells[0]} | {cells[1]} | |")
    return "\n".join(lines)


def _pairs(firsts: Sequence[Task], seconds: Sequence[Task]) -> Iterator[tuple[Record, Record]]:
    """The records of both settings for each concept and seed that has both."""
    for both in zip(firsts, seconds, strict=True):
        one, other = map(read, both)
        if one is not None and other is not None:
            yield one, other


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the comparison, run nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--settings", nargs="+", default=NAMES, choices=NAMES)
    options = parser.parse_args()
    if options.table:
        say(table())
        return
    chosen = settings()
    every = [task for name in options.settings for task in tasks(name, chosen[name])]
    every.sort(key=lambda task: task.seed)
    for task in every:
        if task.seed in options.seeds and read(task) is None:
            say(task.name)
            perform(task, "cpu")


if __name__ == "__main__":
    main()
