"""Several concepts at once, or one after the other: ``python -m benchmarks.several``.

It forgets 1, 2, 4 and 8 objects of EmojiCanvas, all in one run and in one run after another, where
each run continues with the saved model of the run before. Every state is evaluated against the
model before the first run, for each concept that it should have forgotten so far. UCE, which edits
any number of concepts at once, is beside ours. A record in ``benchmarks/results/several`` is
written after each run, so the benchmark can be interrupted and resumed. ``--table`` prints the
table of the runs so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import code, harmonic_mean, slug, write_record
from demo import world
from demo.jobs import EMOJI, job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.job import Job
from unlearn_core.job.settings_file import Also, JobSettings
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.recipes import from_recipe
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "several"
ROOM = Path(".build") / "several"
CONCEPTS = ("guitar", "cat", *world.OBJECTS[2:8])  # two of the scored objects, six held out
COUNTS = (1, 2, 4, 8)
PICTURES = 32
SEEDS = (0, 1)
TOGETHER, IN_TURN = "in one run", "one after the other"
METHODS: Mapping[str, UnlearnSettings] = {"ours": UnlearnSettings(), "UCE": from_recipe("UCE")}


@dataclass(frozen=True)
class Run:
    """The first ``count`` concepts, forgotten by one method."""

    method: str
    order: str
    count: int
    seed: int

    @property
    def record(self) -> Path:
        return RESULTS / f"{slug(self.method)}-{slug(self.order)}-{self.count}-{self.seed}.json"

    @property
    def concepts(self) -> tuple[str, ...]:
        return CONCEPTS[: self.count]


def settings_of(
    concepts: Sequence[str], unlearn: UnlearnSettings, model: Path, forgotten: Sequence[str]
) -> JobSettings:
    """The job that forgets ``concepts``.

    Args:
        forgotten: the concepts that no replacement may name, because they are to be forgotten too,
            or are forgotten already.
    """
    jobs = []
    for concept in concepts:
        job = job_settings(concept, unlearn)
        kept = tuple(word for word in job.concept.replacements if word not in forgotten)
        jobs.append(replace(job, model=model, concept=replace(job.concept, replacements=kept)))
    first, *others = jobs
    return replace(first, also=tuple(Also(job.concept, job.prompts) for job in others))


def perform(run: Run, cache: LatentCache) -> None:
    """Unlearn, evaluate and write the records; those on the way too if the concepts take turns."""
    unlearn = replace(METHODS[run.method], seed=run.seed)
    if run.order == TOGETHER:
        job = Job(settings_of(run.concepts, unlearn, EMOJI, run.concepts), _room(run), cache=cache)
        _record(run, job.unlearn(restart=True), [job], cache)
        return
    jobs: list[Job] = []
    base, model = load_model(EMOJI), EMOJI
    for i, concept in enumerate(run.concepts):
        forgotten = run.concepts[: i + 1]
        settings = settings_of([concept], unlearn, model, forgotten)
        job = Job(settings, _room(run) / concept, cache=cache)
        unlearned = job.unlearn(restart=True)
        model = job.save(unlearned, "folder")
        jobs.append(job)
        so_far = replace(run, count=i + 1)
        if so_far.count in COUNTS:
            pairs = settings_of(forgotten, unlearn, EMOJI, forgotten).pairs()
            _record(so_far, replace(unlearned, base=base, pairs=pairs), jobs, cache)


def _record(run: Run, unlearned: UnlearnedModel, jobs: Sequence[Job], cache: LatentCache) -> None:
    report = evaluate(unlearned, EvaluationSettings(pictures=PICTURES), cache=cache)
    record = {
        "run": asdict(run),
        "code": code(),
        "alarms": [alarm.kind for alarm in unlearned.alarms],
        "settings": asdict(unlearned.settings),
        "passes": sum(sum(job.progress.passes.values()) for job in jobs),
        "seconds": round(sum(sum(job.seconds.values()) for job in jobs), 1),
        "concepts": {
            part.concept.name: {"before": asdict(part.before), "after": asdict(part.after)}
            for part in report.each
        },
    }
    write_record(record, run.record)
    say(f"{run.record.stem}: {_cells([record])}")


def _room(run: Run) -> Path:
    return ROOM / f"{slug(run.method)}-{slug(run.order)}-{run.count}-{run.seed}"


def table() -> str:
    """One row for each number of concepts, order and method."""
    rows = [
        "| concepts | method | UA, mean | UA, least | UA of the first | IRA | CRA | harmonic mean "
        "| change of alignment, train | test | passes | runs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for count in COUNTS:
        for method in METHODS:
            for order in (TOGETHER, IN_TURN)[: 1 if count == 1 else 2]:
                records = [
                    json.loads(run.record.read_text(encoding="utf-8"))
                    for run in (Run(method, order, count, seed) for seed in SEEDS)
                    if run.record.exists()
                ]
                if records:
                    how = method if count == 1 else f"{method}, {order}"
                    rows.append(f"| {count} | {how} | {_cells(records)} | {len(records)} |")
    return "\n".join(rows)


def _cells(records: Sequence[Mapping[str, Any]]) -> str:
    each = [list(record["concepts"].values()) for record in records]
    parts = [part for record in each for part in record]
    forgotten = [[part["after"]["unlearning_accuracy"] for part in record] for record in each]
    figures = [
        statistics.mean(statistics.mean(values) for values in forgotten),
        min(map(min, forgotten)),
        statistics.mean(values[0] for values in forgotten),
        *(
            statistics.mean(part["after"][name] for part in parts)
            for name in ("in_domain_retain", "cross_domain_retain")
        ),
        statistics.mean(harmonic_mean(part["after"]) for part in parts),
    ]
    changes = [
        statistics.mean(part["after"][name] - part["before"][name] for part in parts)
        for name in ("alignment_retain_train", "alignment_retain_test")
    ]
    passes = statistics.mean(record["passes"] for record in records)
    cells = [*(f"{value:.3f}" for value in figures), *(f"{value:+.3f}" for value in changes)]
    return " | ".join([*cells, f"{passes:,.0f}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.several", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        say(table())
        return
    torch.set_num_threads(1)  # the model is small
    cache = LatentCache(CACHE)
    for seed in options.seeds:
        for method in options.methods:
            runs = [Run(method, TOGETHER, count, seed) for count in COUNTS]
            runs.append(Run(method, IN_TURN, COUNTS[-1], seed))
            for run in runs:
                if not run.record.exists():
                    perform(run, cache)


if __name__ == "__main__":
    main()
