"""Where the restricted gradient matters: ``python -m benchmarks.rule``.

The restricted gradient and the plain sum of both gradients (GradDiff), with everything else equal,
in regimes that should need the rule: few prompts, high rates, long runs, a low retain weight, no
first edit, eight concepts in one run, and ``harden``. A record in ``benchmarks/results/rule``
is written after each run, so the benchmark can be interrupted, resumed, and divided among processes
(``--part 0/2``, ``--part 1/2``). ``--table`` prints the table of the runs so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.chance import interval
from benchmarks.quality import OBJECTS, STYLES, code, harmonic_mean, share, slug, write_record
from benchmarks.several import CONCEPTS, settings_of
from demo.jobs import EMOJI, job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.job import Job
from unlearn_core.job.settings_file import JobSettings
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.load import load_model
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "rule"
ROOM = Path(".build") / "rule"
PICTURES = 32
SEEDS = (0, 1)
EIGHT = "eight concepts"
RULES: Mapping[str, Mapping[str, Any]] = {
    "restricted": {},
    "plain": {"method": "GradDiff", "restrict_step": False},
}
USUAL = "automatic settings"
REGIMES: Mapping[str, Mapping[str, Any]] = {
    USUAL: {},
    "4 pairs of prompts": {"train_count": 4},
    "4 times the rate": {"learning_rate": 4.0},
    "10 times the steps": {"steps": 10},
    "retain weight 0.1": {"retain_weight": 0.1},
    "no first edit, no prompt protection": {
        "warm_start": False,
        "prompt_protection": 0.0,
        "steps": 0.2,
        "batch_size": 8,
        "picture_pairs": 23,
    },
    EIGHT: {},
    "harden": {"harden": True},
}
"""What differs from the automatic settings; ``learning_rate`` and ``steps`` are factors, and
``train_count`` belongs to the prompts."""
FACTORS = ("learning_rate", "steps")
METRICS = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
ALIGNMENT = ("alignment_retain_train", "alignment_retain_test")


@dataclass(frozen=True)
class Run:
    """One rule in one regime."""

    regime: str
    rule: str
    concept: str
    seed: int

    @property
    def name(self) -> str:
        return f"{slug(self.regime)}-{self.rule}-{slug(self.concept)}-{self.seed}"

    @property
    def record(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def settings(self) -> JobSettings:
        """The settings of the job, with all numbers."""
        fields = dict(REGIMES[self.regime])
        train_count = fields.pop("train_count", None)
        factors = {name: fields.pop(name) for name in FACTORS if name in fields}
        unlearn = resolved(UnlearnSettings(**fields, seed=self.seed), load_model(EMOJI))
        scaled = {
            name: type(getattr(unlearn, name))(getattr(unlearn, name) * factor)
            for name, factor in factors.items()
        }
        unlearn = replace(unlearn, **scaled, **RULES[self.rule])
        if self.regime == EIGHT:
            job = settings_of(CONCEPTS, unlearn, EMOJI, CONCEPTS)
        else:
            job = job_settings(self.concept, unlearn)
        if train_count:
            job = replace(job, prompts=replace(job.prompts, train_count=train_count))
        return replace(job, evaluation=EvaluationSettings(pictures=PICTURES))


def runs(seeds: Sequence[int] = SEEDS) -> Iterator[Run]:
    """Both rules after each other, so that an early table compares them."""
    for seed in seeds:
        for regime in REGIMES:
            concepts = (EIGHT,) if regime == EIGHT else (*STYLES, *OBJECTS)
            for concept in concepts:
                for rule in RULES:
                    yield Run(regime, rule, concept, seed)


def perform(run: Run) -> None:
    """Unlearn, evaluate and write the record."""
    job = Job(run.settings(), ROOM / run.name, cache=LatentCache(CACHE))
    unlearned = job.unlearn(restart=True)
    report = job.evaluate(unlearned)
    steps = unlearned.reports
    record = {
        "run": asdict(run),
        "code": code(),
        "settings": asdict(unlearned.settings),
        "alarms": [alarm.kind for alarm in unlearned.alarms],
        "conflict_share": share(step.conflict for step in steps),
        "rise_share": share(max(s.forget_change, s.retain_change) > 0 for s in steps),
        "concepts": {
            part.concept.name: {"before": asdict(part.before), "after": asdict(part.after)}
            for part in report.each
        },
    }
    write_record(record, run.record)
    say(f"{run.name}: {_scores(record)}")


def _scores(record: Mapping[str, Any]) -> dict[str, float]:
    """Means over the concepts of a run."""
    after = [part["after"] for part in record["concepts"].values()]
    scores = {"harmonic mean": statistics.mean(map(harmonic_mean, after))}
    for name in (*METRICS, *ALIGNMENT):
        scores[name] = statistics.mean(part[name] for part in after)
    return scores


def table(seeds: Sequence[int] = SEEDS) -> str:
    """For each regime: how often the gradients were in conflict, how often a step of the plain sum
    raised a loss, the harmonic mean of both rules, and the paired differences."""
    rows = [
        "| regime | conflict | plain step raises a loss | harmonic mean, restricted | plain "
        "| restricted less plain: harmonic mean | UA | alignment, train | test | pairs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for regime in REGIMES:
        pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        for run in runs(seeds):
            both = [replace(run, rule=rule).record for rule in RULES]
            if run.regime == regime and run.rule == "plain" and all(f.exists() for f in both):
                first, second = (json.loads(file.read_text(encoding="utf-8")) for file in both)
                pairs.append((first, second))
        if pairs:
            rows.append(f"| {regime} | {_cells(pairs)} | {len(pairs)} |")
    return "\n".join(rows)


def _cells(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    shares = [
        statistics.mean(plain[name] for _, plain in pairs)
        for name in ("conflict_share", "rise_share")
    ]
    scores = [(_scores(restricted), _scores(plain)) for restricted, plain in pairs]
    means = [statistics.mean(each[i]["harmonic mean"] for each in scores) for i in (0, 1)]
    cells = [*(f"{value:.2f}" for value in shares), *(f"{value:.3f}" for value in means)]
    for name in ("harmonic mean", "unlearning_accuracy", *ALIGNMENT):
        gains = [one[name] - other[name] for one, other in scores]
        cells.append(interval(gains, digits=3) if len(gains) > 1 else f"{gains[0]:+.3f}")
    return " | ".join(cells)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rule", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), choices=REGIMES)
    parser.add_argument("--part", default="0/1", help="index of this process / their number")
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        say(table())
        return
    torch.set_num_threads(1)  # the model is small
    index, count = map(int, options.part.split("/"))
    for i, run in enumerate(runs(options.seeds)):
        if i % count == index and run.regime in options.regimes and not run.record.exists():
            perform(run)


if __name__ == "__main__":
    main()
