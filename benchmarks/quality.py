"""All methods under the same budget: ``python -m benchmarks.quality``.

Each finished run writes a JSON record into ``benchmarks/results/quality``, and a run with a record
is skipped. So the benchmark can be interrupted and resumed, and divided among processes (``--part
0/2``, ``--part 1/2``). First every method is tuned by the same small search on two concepts that
are not scored; then it runs on the scored concepts with three seeds each. ``--tier unseen`` has
held-out objects, untouched during development; ``--tier full --device cuda`` is for a machine with
a GPU: all styles and ten objects. ``python -m benchmarks.quality_report`` creates the tables.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods import ABLATIONS, METHODS, OF_ONE_SEED, UNPROBED, candidates
from demo import world
from demo.jobs import EMOJI, job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.foundation.atomic import appearing
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.engine import training_sets
from unlearn_core.job.job import Job
from unlearn_core.judging.evaluators import find_evaluators, find_scorer
from unlearn_core.judging.probes import PROBES, run_probe
from unlearn_core.judging.settings import EvaluationSettings, ProbeSettings
from unlearn_core.models.layers import AUTO, XATTN
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import MOST_PICTURE_PAIRS, NORMAL, UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "quality"
ROOM = Path(".build") / "quality"  # unlearned weights, for the probes
TUNED_ON = ("pixel", "noto")  # unlike all others; similar to twemoji
TUNING_PICTURES, PICTURES = 32, 64
TOLERANCE, FORGOTTEN = 0.02, 0.98
STYLES = ("ink", "twemoji")  # unlike all others; similar to noto
OBJECTS = ("guitar", "cat")  # unlike all others; similar to dog and bear
TIERS = {
    "small": (*STYLES, *OBJECTS),
    "unseen": world.OBJECTS[2:9],  # held out: untouched during development
    "full": (*world.STYLES, *OBJECTS, *world.OBJECTS[1:9]),
}
SEEDS = (0, 1, 2)
THOROUGH = UnlearnSettings(
    steps=100,
    learning_rate=3e-4,
    batch_size=16,
    picture_pairs=MOST_PICTURE_PAIRS,
    picture_steps=12,
    warm_start_weight=4.0,
    prompt_protection=0.0,
)
"""The defaults before numbers were chosen automatically, with 13 times as many denoiser passes."""
BEFORE = {
    "picture_pairs": MOST_PICTURE_PAIRS,
    "picture_steps": 12,
    "empty_share": 0.0,
    "stratified_timesteps": True,
    "warm_start_weight": 1.0,
    "uce_tokens": "to the end",
    "diversified": True,
    "prompt_protection": 0.0,
    "effort": NORMAL,
    "harden": False,
}
"""Settings newer than some records, with the values in effect before they existed."""
OF_REPORT = (
    "concept", "before", "after", "retain_distance", "model", "settings", "seconds", "cost",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One run: its settings and the name of its record."""

    name: str
    concept: str
    seed: int
    settings: UnlearnSettings
    pictures: int
    probed: bool = False
    folder: Path | None = None  # of the record; None for ``RESULTS``
    model: Path = EMOJI

    @property
    def record(self) -> Path:
        return (self.folder or RESULTS) / f"{self.name}.json"


def slug(method: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in method.lower())
    return "-".join(words.split())


def tuning_tasks(method: str) -> list[Task]:
    """The search's tasks known so far: the second concept is only for the best on the first."""
    return search(method)[0]


def tuned(method: str) -> UnlearnSettings | None:
    """The result of the search; None until it is complete."""
    if method in ABLATIONS:
        original = tuned(ABLATIONS[method])
        return None if original is None else _pinned(replace(original, **METHODS[method]))
    return search(method)[1]


def search(method: str) -> tuple[list[Task], UnlearnSettings | None]:
    """The tasks of a method's search, and its result if they are complete."""
    settings = [_settings(fields) for fields in candidates(method)]
    return search_among(settings, TUNED_ON, functools.partial(_tuning_task, method))


def search_among(
    settings: Sequence[UnlearnSettings],
    concepts: Sequence[str],
    tuning_task: Callable[[str, UnlearnSettings], Task],
    most: int | None = None,
) -> tuple[list[Task], UnlearnSettings | None]:
    """The tasks of a search, and its result if they are complete.

    After each concept only the candidates within ``TOLERANCE`` of the best harmonic mean remain.
    The result is the remaining one that changed the retained pictures least (CMMD), among those
    with a UA of at least ``FORGOTTEN`` if there are any.

    Args:
        settings: the candidates.
        tuning_task: returns the run of a candidate on a concept.
        most: number of candidates to keep after each concept, the best by the rule for the
            result; None for all within the tolerance.
    """
    remaining = list(settings)
    all_tasks: list[Task] = []
    for concept in concepts:
        tasks = [tuning_task(concept, candidate) for candidate in remaining]
        all_tasks += tasks
        records = [record for record in map(read, tasks) if record is not None]
        if len(records) < len(tasks):
            return all_tasks, None
        best = max(harmonic_mean(record["after"]) for record in records)
        # One picture of the search changes the mean by 0.01. Candidates within two pictures of the
        # best are compared on another concept, and then by the damage, which is measured over all
        # retained pictures.
        close = [
            (record["after"]["unlearning_accuracy"] < FORGOTTEN, record["retain_distance"], i)
            for i, record in enumerate(records)
            if harmonic_mean(record["after"]) >= best - TOLERANCE
        ]
        remaining = [remaining[i] for _, _, i in sorted(close)[:most]]
        if len(remaining) == 1:
            break
    return all_tasks, remaining[0]


def _settings(fields: dict[str, Any]) -> UnlearnSettings:
    return _pinned(replace(THOROUGH, **fields))


def _pinned(settings: UnlearnSettings) -> UnlearnSettings:
    """With the demo model's scope in place of ``"auto"``: records contain the scope itself."""
    return replace(settings, scope=XATTN) if settings.scope == AUTO else settings


def _tuning_task(method: str, concept: str, settings: UnlearnSettings) -> Task:
    rate, weight = settings.learning_rate, settings.retain_weight
    name = f"tune-{concept}-{slug(method)}-{rate:g}-{weight:g}"
    return Task(name, concept, 0, settings, TUNING_PICTURES)


def harmonic_mean(after: dict[str, Any]) -> float:
    """Harmonic mean of UA, IRA and CRA, as far as the concept has them."""
    names = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
    values = [after[name] for name in names if after[name] is not None]
    return len(values) / sum(1 / max(value, 1e-9) for value in values)


def read(task: Task) -> dict[str, Any] | None:
    """The record of exactly this task; None if it does not exist."""
    if not task.record.exists():
        return None
    record = json.loads(task.record.read_text(encoding="utf-8"))
    return record if same_settings(record["settings"], task.settings) else None


def same_settings(
    recorded: dict[str, Any], settings: UnlearnSettings, unused: Collection[str] = ()
) -> bool:
    """Whether a record has these settings.

    Args:
        unused: settings without effect on the run, in addition to those of a disabled warm start.

    Raises:
        ValueError: a setting is newer than the record, and ``BEFORE`` lacks it.
    """
    expected = json.loads(json.dumps(asdict(settings)))
    unknown = sorted(expected.keys() - recorded.keys() - BEFORE.keys())
    if unknown:
        raise ValueError(
            f"{unknown[0]}: a record of the benchmark is older than this setting; add to BEFORE, "
            "in benchmarks/quality.py, the value in effect before the setting existed"
        )
    ignored = {*unused, *(() if settings.warm_start else ("warm_start_weight",))}
    actual = {**BEFORE, **recorded}
    names = (actual.keys() | expected.keys()) - ignored
    return all(actual.get(name) == expected.get(name) for name in names)


def scored_tasks(method: str, concepts: tuple[str, ...]) -> list[Task]:
    """The runs on the scored concepts; empty until the method is tuned."""
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
            # The probes take as long as the run itself.
            probed=concept in TIERS["small"] and seed == SEEDS[0] and method not in UNPROBED,
        )
        for concept in concepts
        for seed in seeds_of(method)
    ]


def seeds_of(method: str) -> tuple[int, ...]:
    return SEEDS[:1] if method in OF_ONE_SEED else SEEDS


def code() -> str:
    """Hash of the package's code, because another version may give other figures."""
    package = Path(__file__).parent.parent / "unlearn_core"
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def perform(task: Task, device: str) -> None:
    """Run a task in this process, and write its record."""
    settings = job_settings(task.concept, task.settings, task.model)
    settings = replace(settings, evaluation=EvaluationSettings(pictures=task.pictures))
    cache = LatentCache(CACHE)
    job = Job(settings, ROOM / task.model.name / task.name, cache=cache, device=device)
    # All methods share the cached pictures; drawing them must not count for the first method.
    training_sets(job.task, cache)
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
    """Unlearn, and measure time and peak memory. On a CPU, the process's own time and memory,
    because the wall clock includes other programs; on a GPU, wall-clock time and the device's
    memory."""
    on_gpu = job.base.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    unlearned = job.unlearn(restart=True)
    if on_gpu:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    name = "gpu_seconds" if on_gpu else "cpu_seconds"
    return unlearned, {name: round(clock() - start, 1), "peak_bytes": peak}


def write_record(record: dict[str, Any], file: Path) -> None:
    """Write atomically, because an interrupted benchmark resumes from its records."""
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
    parser.add_argument("--concepts", nargs="+", help="instead of the tier's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", default="0/1", help="index of this process / their number")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    concepts = tuple(options.concepts or TIERS[options.tier])
    if options.task:
        (task,) = [t for t in open_tasks(options.methods, concepts) if t.name == options.task]
        perform(task, options.device)
        return
    failed: set[str] = set()
    # Whole methods are distributed, because the runs of a method depend on its search.
    mine = [method for i, method in enumerate(options.methods) if i % parts == part]
    while True:
        waiting = [t for t in open_tasks(mine, concepts) if t.name not in failed]
        if not waiting:
            break
        task = waiting[0]
        say(f"{len(waiting)} open: {task.name}")
        # In a separate process, to measure its own peak memory.
        command = [sys.executable, "-m", "benchmarks.quality", "--task", task.name]
        command += ["--concepts", *concepts, "--device", options.device]
        if subprocess.call(command) != 0:
            failed.add(task.name)
            say(f"failed: {task.name}")
    untuned = [method for method in mine if tuned(method) is None]
    if untuned:
        say(f"the search is not complete for {', '.join(untuned)}; finish it, then start again")
    if failed:
        raise SystemExit(f"failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
