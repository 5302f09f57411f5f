"""What fewer denoiser passes cost: ``python -m benchmarks.passes``.

The automatic settings need about 2,000 passes for drawing and unlearning, the thorough ones of the
main benchmark 26,000. Both run on the same concepts, seeds and held-out prompts. Each finished run
writes a JSON record into ``benchmarks/results/passes``; a run with a record is skipped. ``--table``
prints the comparison of the runs so far.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.chance import interval
from benchmarks.quality import PICTURES, SEEDS, THOROUGH, TIERS, Task, perform, read
from benchmarks.records import COLUMNS, SUMMARY, Record, recorded_passes
from demo.jobs import EMOJI
from unlearn_core.job.console import say
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "passes"
CONCEPTS = (*TIERS["small"], *TIERS["unseen"])
AUTOMATIC, ALL = "automatic", "thorough"


def settings() -> dict[str, UnlearnSettings]:
    """Setting by name, with all numbers."""
    model = load_model(EMOJI)
    return {AUTOMATIC: resolved(UnlearnSettings(), model), ALL: resolved(THOROUGH, model)}


def tasks(name: str, chosen: UnlearnSettings) -> list[Task]:
    """All runs of one setting, seed by seed."""
    return [
        Task(f"{concept}-{name}-{seed}", concept, seed, replace(chosen, seed=seed), PICTURES,
             folder=RESULTS)
        for seed in SEEDS
        for concept in CONCEPTS
    ]  # fmt: skip


def pairs() -> Iterator[tuple[Record, Record]]:
    """The records of both settings for each concept and seed that has both."""
    by_name = [tasks(name, chosen) for name, chosen in settings().items()]
    for both in zip(*by_name, strict=True):
        few, many = map(read, both)
        if few is not None and many is not None:
            yield few, many


def table() -> str:
    """The means of both settings, and the paired differences with their 95 % intervals."""
    found = list(pairs())
    if len(found) < 2:
        return "there are fewer than two pairs of records; run the benchmark first"
    lines = [
        f"{len(found)} runs each",
        "",
        f"| figure | {AUTOMATIC} | {ALL} | difference, 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    for name in SUMMARY:
        values = [(COLUMNS[name](few), COLUMNS[name](many)) for few, many in found]
        both = [(a, b) for a, b in values if a is not None and b is not None]
        lines.append(
            f"| {name} | {statistics.mean(a for a, _ in both):.4f} "
            f"| {statistics.mean(b for _, b in both):.4f} "
            f"| {interval([a - b for a, b in both])} |"
        )
    cells = [f"{statistics.mean(recorded_passes(pair[i]) for pair in found):,.0f}" for i in (0, 1)]
    lines.append(f"| denoiser passes for drawing and unlearning | {cells[0]} | {cells[1]} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the comparison, run nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--settings", nargs="+", default=[AUTOMATIC, ALL])
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
