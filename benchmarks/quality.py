"""Every method under one budget: ``python -m benchmarks.quality``.

Each finished run leaves one JSON record in ``benchmarks/results/quality``, and a run that has its
record is not made again: the benchmark goes on where it was broken off, in two processes
(``--part 0/2``, ``--part 1/2``) or over days. First every method is tuned by the same small search
on two concepts that are not scored; then it runs on the scored concepts, three seeds each.
``--tier unseen`` has objects at which nobody looked while choices were made; ``--tier full --device
cuda`` is for a machine with a GPU: all styles and ten objects.
``python -m benchmarks.quality_report`` makes the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods import ABLATIONS, METHODS, OF_ONE_SEED, UNPROBED, candidates
from demo import world
from demo.jobs import job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.foundation.atomic import appearing
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.job import Job
from unlearn_core.judging.evaluators import find_evaluators, find_scorer
from unlearn_core.judging.probes import PROBES, run_probe
from unlearn_core.judging.settings import EvaluationSettings, ProbeSettings
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "quality"
ROOM = Path(".build") / "quality"  # unlearned weights, for the probes
TUNED_ON = ("pixel", "noto")  # far from all others; beside twemoji
TUNING_PICTURES, PICTURES = 32, 64
TOLERANCE, FORGOTTEN = 0.02, 0.98
STYLES = ("ink", "twemoji")  # far from all others; with a near neighbour, noto
OBJECTS = ("guitar", "cat")  # likewise; dog and bear are near
TIERS = {
    "small": (*STYLES, *OBJECTS),
    "unseen": world.OBJECTS[2:9],  # at which nobody looked when choices were made
    "full": (*world.STYLES, *OBJECTS, *world.OBJECTS[1:9]),
}
SEEDS = (0, 1, 2)
BEFORE = {
    "empty_share": 0.0,
    "stratified_timesteps": True,
    "warm_start_weight": 1.0,
    "uce_tokens": "to the end",
    "diversified": True,
}
"""Settings newer than some records, with the values in effect before they existed."""
OF_REPORT = ("concept", "before", "after", "retain_distance", "model", "settings", "seconds")


@dataclass(frozen=True)
class Task:
    """One run: where its record goes and what it does."""

    name: str
    concept: str
    seed: int
    settings: UnlearnSettings
    pictures: int
    probed: bool = False

    @property
    def record(self) -> Path:
        return RESULTS / f"{self.name}.json"


def slug(method: str) -> str:
    kept = "".join(c if c.isalnum() else " " for c in method.lower())
    return "-".join(kept.split())


def tuning_tasks(method: str) -> list[Task]:
    """As far as they are known: the second concept is for those that do well on the first."""
    return search(method)[0]


def tuned(method: str) -> UnlearnSettings | None:
    """What the search has chosen; None until it is complete."""
    if method in ABLATIONS:
        whole = tuned(ABLATIONS[method])
        return None if whole is None else replace(whole, **METHODS[method])
    return search(method)[1]


def search(method: str) -> tuple[list[Task], UnlearnSettings | None]:
    """On one concept after another, those within ``TOLERANCE`` of the best harmonic mean go on. Of
    those left in the end, and forgotten to a UA of ``FORGOTTEN`` if any did, the one that changed
    the retained pictures least (CMMD) is chosen."""
    left = [replace(UnlearnSettings(), **chosen) for chosen in candidates(method)]
    made: list[Task] = []
    for concept in TUNED_ON:
        tasks = [_tuning_task(method, concept, settings) for settings in left]
        made += tasks
        found = [record for record in map(read, tasks) if record is not None]
        if len(found) < len(tasks):
            return made, None
        best = max(harmonic_mean(record["after"]) for record in found)
        # One picture of the search moves the mean by 0.01: what is as good as the best to within
        # two of them is told apart by another concept, and then by the damage, which is measured
        # over all retained pictures.
        close = [
            (record["after"]["unlearning_accuracy"] < FORGOTTEN, record["retain_distance"], i)
            for i, record in enumerate(found)
            if harmonic_mean(record["after"]) >= best - TOLERANCE
        ]
        left = [left[i] for _, _, i in sorted(close)]
        if len(left) == 1:
            break
    return made, left[0]


def _tuning_task(method: str, concept: str, settings: UnlearnSettings) -> Task:
    rate, weight = settings.learning_rate, settings.retain_weight
    name = f"tune-{concept}-{slug(method)}-{rate:g}-{weight:g}"
    return Task(name, concept, 0, settings, TUNING_PICTURES)


def harmonic_mean(after: dict[str, Any]) -> float:
    """Of UA, IRA and CRA; those that the concept has."""
    names = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
    values = [after[name] for name in names if after[name] is not None]
    return len(values) / sum(1 / max(value, 1e-9) for value in values)


def read(task: Task) -> dict[str, Any] | None:
    """The record of exactly this task, if it has been made."""
    if not task.record.exists():
        return None
    found = json.loads(task.record.read_text(encoding="utf-8"))
    return found if same_settings(found["settings"], task.settings) else None


def same_settings(
    recorded: dict[str, Any], settings: UnlearnSettings, unused: Collection[str] = ()
) -> bool:
    """Whether a record is of these settings.

    Args:
        unused: settings without effect on the run, besides that of a warm start switched off.

    Raises:
        ValueError: a setting is newer than the record, and ``BEFORE`` lacks it.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    unknown = sorted(wanted.keys() - recorded.keys() - BEFORE.keys())
    if unknown:
        raise ValueError(
            f"{unknown[0]}: a record of the benchmark is older than this setting; add to BEFORE, "
            "in benchmarks/quality.py, the value that runs had in effect before it existed"
        )
    without = {*unused, *(() if settings.warm_start else ("warm_start_weight",))}
    found = {**BEFORE, **recorded}
    names = (found.keys() | wanted.keys()) - without
    return all(found.get(name) == wanted.get(name) for name in names)


def scored_tasks(method: str, concepts: tuple[str, ...]) -> list[Task]:
    """Empty until the method is tuned."""
    settings = tuned(method)
    if settings is None:
        return []
    return [
        Task(
            f"{concept}-{slug(method)}-{seed}",
            concept,
            seed,
            replace(settings, seed=seed),
            PICTURES,
            # They take as long as the run itself.
            probed=concept in TIERS["small"] and seed == SEEDS[0] and method not in UNPROBED,
        )
        for concept in concepts
        for seed in seeds_of(method)
    ]


def seeds_of(method: str) -> tuple[int, ...]:
    return SEEDS[:1] if method in OF_ONE_SEED else SEEDS


def code() -> str:
    """Of the package that makes a record: another one may come to other figures."""
    package = Path(__file__).parent.parent / "unlearn_core"
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def perform(task: Task, device: str) -> None:
    """Run it in this process, and leave its record."""
    settings = job_settings(task.concept, task.settings)
    settings = replace(settings, evaluation=EvaluationSettings(pictures=task.pictures))
    cache = LatentCache(CACHE)
    job = Job(settings, ROOM / task.name, cache=cache, device=device)
    # All learn from the same pictures, kept on disk: the first method must not pay for them alone.
    make_training_sets(job.base, job.task.training_pairs, settings.generation, cache=cache)
    unlearned, cost = measured(job)
    job.evaluate(unlearned)
    report = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
    steps = report["steps"]
    record = {
        "task": task.name,
        "code": code(),
        "seed": task.seed,
        **{key: report[key] for key in OF_REPORT},
        **cost,
        "conflict_share": share(step["conflict"] for step in steps),
        "rise_share": share(
            max(step["forget_change"], step["retain_change"]) > 0 for step in steps
        ),
        "probes": probed(unlearned, cache) if task.probed else None,
    }
    write_record(record, task.record)


def measured(job: Job) -> tuple[UnlearnedModel, dict[str, float]]:
    """What it makes, its seconds and its peak of memory. On a CPU those of the process, for the
    clock also counts what else runs here; on a GPU those of the clock and of the device."""
    on_gpu = job.base.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    unlearned = job.unlearn()
    if on_gpu:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    name = "gpu_seconds" if on_gpu else "cpu_seconds"
    return unlearned, {name: round(clock() - began, 1), "peak_bytes": peak}


def write_record(record: dict[str, Any], file: Path) -> None:
    """All of it or nothing: a benchmark that is broken off goes on from its records."""
    with appearing(file) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def probed(unlearned: UnlearnedModel, cache: LatentCache) -> dict[str, dict[str, float | None]]:
    """For each probe, the share of pictures that show the concept, before and after."""
    base = unlearned.base
    judges = find_evaluators(base, unlearned.pairs, find_scorer(base))
    results = {
        name: run_probe(name, unlearned, judges, ProbeSettings(), cache=cache) for name in PROBES
    }
    return {name: {"before": r.before, "after": r.after} for name, r in results.items()}


def share(truths: Iterator[bool]) -> float | None:
    values = list(truths)
    return sum(values) / len(values) if values else None


def open_tasks(methods: list[str], concepts: tuple[str, ...]) -> list[Task]:
    """Tuning first, then concept by concept, so that an early table compares all methods."""
    searched = [method for method in methods if method not in ABLATIONS]
    tuning = [task for method in searched for task in tuning_tasks(method)]
    scored = [task for method in methods for task in scored_tasks(method, concepts)]
    scored.sort(key=lambda task: (task.seed, concepts.index(task.concept)))
    return [task for task in tuning + scored if read(task) is None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tier", default="small", choices=list(TIERS))
    parser.add_argument("--concepts", nargs="+", help="in place of the tier's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", default="0/1", help="which of how many processes this is")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    concepts = tuple(options.concepts or TIERS[options.tier])
    if options.task:
        (task,) = [t for t in open_tasks(options.methods, concepts) if t.name == options.task]
        perform(task, options.device)
        return
    failed: set[str] = set()
    # Methods are dealt out, for a method's own search decides what comes after it.
    mine = [method for i, method in enumerate(options.methods) if i % parts == part]
    while True:
        waiting = [t for t in open_tasks(mine, concepts) if t.name not in failed]
        if not waiting:
            break
        task = waiting[0]
        say(f"{len(waiting)} open: {task.name}")
        # A process of its own, so that its peak of memory is its own.
        command = [sys.executable, "-m", "benchmarks.quality", "--task", task.name]
        command += ["--concepts", *concepts, "--device", options.device]
        if subprocess.call(command) != 0:
            failed.add(task.name)
            say(f"failed: {task.name}")
    untuned = [method for method in mine if tuned(method) is None]
    if untuned:
        say(f"not searched yet, by this part or another: {', '.join(untuned)}; start again then")
    if failed:
        raise SystemExit(f"failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
