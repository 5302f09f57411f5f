"""How hard the concept is to bring back: ``python -m benchmarks.recovery``.

Every attack of the thorough probes is run against the model before unlearning, ours at its
defaults and with ``harden``, UCE, and a model that never knew the concept, on the four scored
concepts with one seed. ``python -m demo.never_knew`` trains the models that never knew; without
them, the others run alone. Any method of ``benchmarks/methods.py`` can be named with ``--methods``;
``--bar`` runs only the points that the bar names. A record in ``benchmarks/results/recovery`` is
written after each attack, so the benchmark can be interrupted and resumed. ``--table`` prints the
tables of the runs so far, and ``--picture`` draws the curves.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import recovery_report
from benchmarks.methods import METHODS
from benchmarks.quality import (
    PICTURES,
    ROOM,
    TIERS,
    code,
    same_settings,
    slug,
    tuned,
    write_record,
)
from benchmarks.records import Record
from demo import never_knew
from demo.jobs import job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.job import Job
from unlearn_core.judging.curves import Attack, Target, shown
from unlearn_core.judging.evaluators import find_evaluators, find_scorer
from unlearn_core.judging.probes import CURVES, OTHER_LANGUAGES
from unlearn_core.judging.settings import EvaluationSettings, ProbeSettings
from unlearn_core.models.load import load_model
from unlearn_core.reporting.report import report_json
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "recovery"
CONCEPTS = TIERS["small"]
BEFORE, DEFAULTS, NEVER_KNEW = "before unlearning", "ours, defaults", "never knew"
HARDENED = "ours, harden"
OWN_SETTINGS = {DEFAULTS: UnlearnSettings(), HARDENED: UnlearnSettings(harden=True)}
"""Methods that are not in the table of methods. Those in it have the settings of their search."""
SHOWN = (BEFORE, DEFAULTS, HARDENED, "UCE", NEVER_KNEW)  # whole curves
ALL = (BEFORE, NEVER_KNEW, *OWN_SETTINGS, *METHODS)
BAR = {
    "textual inversion": 60,
    "textual inversion, 2 words": 60,
    "textual inversion, 4 words": 60,
    "relearning from ten pictures": 60,
    "adversarial search, free embeddings": 100,
    "adversarial search, words": 100,
}
"""Attack -> the effort at which the bar limits it."""
EVERY = (OTHER_LANGUAGES, *CURVES)
OF_REPORT = ("concept", "before", "after", "retain_distance")


@dataclass(frozen=True)
class Run:
    """All attacks on one model."""

    method: str
    concept: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.concept}-{slug(self.method)}-{self.seed}"

    @property
    def record(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def settings(self) -> UnlearnSettings | None:
        """None for a model that was not unlearned."""
        if self.method in (BEFORE, NEVER_KNEW):
            return None
        settings = OWN_SETTINGS.get(self.method) or tuned(self.method)
        assert settings is not None, f"the search of {self.method} is not complete"
        return replace(settings, seed=self.seed)


def attacks(bar: bool) -> list[Attack]:
    """The attacks of a run, the fastest first: all, or only the points that the bar names."""
    if not bar:
        return sorted(EVERY, key=lambda attack: attack.efforts[-1])
    return [with_efforts(each, (BAR[each.name],)) for each in CURVES if each.name in BAR]


def with_efforts(attack: Attack, efforts: tuple[int, ...]) -> Attack:
    """The attack, judged at other efforts."""
    settings: Any = attack  # a dataclass, which no protocol can require
    return replace(settings, efforts=efforts)


def read(run: Run) -> Record | None:
    """The record so far; None if there is none with these settings."""
    if not run.record.exists():
        return None
    record = json.loads(run.record.read_text(encoding="utf-8"))
    settings = run.settings
    same = settings is None or same_settings(record["settings"], settings)
    return record if same else None


def missing(record: Record | None, wanted: Sequence[Attack]) -> list[Attack]:
    """The attacks of which a record lacks an effort."""
    if record is None:
        return list(wanted)
    efforts = {
        name: {point["effort"] for point in curve["points"]}
        for name, curve in record["curves"].items()
    }
    return [each for each in wanted if not set(each.efforts) <= efforts.get(each.name, set())]


def perform(run: Run, wanted: Sequence[Attack], settings: ProbeSettings, pictures: int) -> None:
    """Create the model, evaluate it, and run the attacks that its record lacks."""
    cache = LatentCache(CACHE)
    unlearned = model_of(run, cache)
    base, pairs = unlearned.base, unlearned.pairs
    judges = find_evaluators(base, pairs, find_scorer(base))
    record = read(run) or {
        "task": run.name,
        "method": run.method,
        "seed": run.seed,
        "code": code(),
        "settings": None if run.settings is None else asdict(run.settings),
        **_evaluation(unlearned, pictures, cache),
        "curves": {},
    }
    write_record(record, run.record)
    target = Target(unlearned.model, base, pairs, settings, cache)
    for attack in missing(record, wanted):
        say(f"{run.name}: {attack.name}")
        points = [
            {
                "effort": attempt.effort,
                "label": attempt.label,
                "shown": count,
                "pictures": len(attempt.prompts),
            }
            for attempt, count in shown(attack, target, judges)
        ]
        record["curves"][attack.name] = {"unit": attack.unit, "points": points}
        write_record(record, run.record)


def _evaluation(unlearned: UnlearnedModel, pictures: int, cache: LatentCache) -> dict[str, Any]:
    """How the model answers the plain prompts, and what else it draws."""
    report = report_json(
        unlearned, evaluate(unlearned, EvaluationSettings(pictures=pictures), cache=cache)
    )
    return {key: report[key] for key in OF_REPORT}


def model_of(run: Run, cache: LatentCache) -> UnlearnedModel:
    """The model of a run, unlearned if its method requires it."""
    settings = run.settings
    job = Job(
        job_settings(run.concept, settings or replace(UnlearnSettings(), seed=run.seed)),
        ROOM / "recovery" / run.name,
        cache=cache,
    )
    if settings is not None:
        return job.unlearn()
    other = job.base if run.method == BEFORE else load_model(never_knew.folder(run.concept))
    return UnlearnedModel(other, job.base, job.task.pairs, job.task.settings, ())


def exists(run: Run) -> bool:
    """Whether the model of a run can be created."""
    return run.method != NEVER_KNEW or never_knew.folder(run.concept).is_dir()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(SHOWN), choices=ALL)
    parser.add_argument("--concepts", nargs="+", default=list(CONCEPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--attacks", nargs="+", choices=[attack.name for attack in EVERY])
    parser.add_argument("--bar", action="store_true", help="only the points of the bar")
    parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
    parser.add_argument("--picture", type=Path, help="draw the curves into this PNG, run nothing")
    options = parser.parse_args()
    if options.table:
        say(recovery_report.table(RESULTS))
    if options.picture:
        recovery_report.plot(RESULTS, options.picture)
    if options.table or options.picture:
        return
    torch.set_num_threads(1)  # the models are small
    wanted = [each for each in attacks(options.bar) if each.name in (options.attacks or each.name)]
    for seed in options.seeds:
        for concept in options.concepts:
            for method in options.methods:
                run = Run(method, concept, seed)
                if not exists(run):
                    say(f"{run.name}: not trained; run `python -m demo.never_knew {concept}` first")
                elif missing(read(run), wanted):
                    perform(run, wanted, ProbeSettings(), PICTURES)
                    gc.collect()


if __name__ == "__main__":
    main()
