"""Whether a look that no word names can be forgotten: ``python -m benchmarks.look``.

EmojiCanvas with a watermark (``python -m demo.watermark``) forgets it, from pictures with and
without it: twins, or two sets of different pictures; 8 or 32 of each; three seeds, each with other
pictures. The recipe *look* is compared with plain fine-tuning on the pictures without the mark and
with GradDiff on both sets. The baselines have the same steps, batch size and scope, and the better
of ``RATES``, found on pictures that are not scored. A record in ``benchmarks/results/look`` is
written after each run, and a run with a record is skipped. ``--table`` prints the table of the runs
so far, ``--picture FILE`` draws pictures before and after.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality import code, harmonic_mean, slug, write_record
from demo import watermark
from demo.artwork import draw
from demo.jobs import STYLE_TEMPLATES
from demo.world import BACKGROUNDS, FULL_CAPTIONS, OBJECTS, STYLES, fill_caption, random_subject
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.dataset.own_pictures import OwnPictures
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.evaluation.results import AlignmentReport
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import LOOK, ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.reporting.grids import before_after
from unlearn_core.reporting.report import report_json
from unlearn_core.unlearning.recipes import LOOKS, from_recipe
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "look"
OURS, FINE_TUNE, GRAD_DIFF = METHODS = (LOOKS, "fine-tune", "GradDiff")
TWINS, TWO_SETS = KINDS = ("twins", "two sets")
COUNTS, SEEDS, SEARCH_SEED = (8, 32), (0, 1, 2), 9
RATES = (1e-4, 3e-4)
PICTURES = 32  # of each of the three groups of the evaluation
DIMENSIONS = {"style": STYLES, "object": OBJECTS, "background": BACKGROUNDS}
SEEDS_OF_SETS = 1000  # distance between the pictures of two seeds
OF_REPORT = ("before", "after", "retain_distance", "settings", "cost")


@dataclass(frozen=True)
class Run:
    """One method on one choice of pictures.

    Attributes:
        rate: the learning rate; 0 for the automatic one.
    """

    method: str
    kind: str
    count: int
    seed: int
    rate: float = 0.0

    @property
    def record(self) -> Path:
        rate = f"-{self.rate:g}" if self.seed == SEARCH_SEED else ""
        name = f"{slug(self.method)}-{slug(self.kind)}-{self.count}-{self.seed}{rate}"
        return RESULTS / f"{name}.json"

    @property
    def settings(self) -> UnlearnSettings:
        if self.method == OURS:
            return from_recipe(LOOKS, seed=self.seed)
        # The same steps as ours, and the same scope; the rate is that of the search.
        same: dict[str, Any] = {"scope": "full", "steps": 60, "batch_size": 8, "seed": self.seed}
        return from_recipe(self.method, learning_rate=self.rate, **same)


def own_pictures(count: int, seed: int) -> tuple[OwnPictures, OwnPictures]:
    """Pictures of the demo's world with the mark, and the same without it."""
    rng, marks = random.Random(f"look {seed}"), random.Random(seed)
    plain, captions = [], []
    for _ in range(count):
        subject = random_subject(rng)
        plain.append(draw(subject, rng))
        captions.append(fill_caption(rng.choice(FULL_CAPTIONS), subject))
    with_mark = [watermark.marked(picture, marks) for picture in plain]
    sets = [OwnPictures(_tensors(each), tuple(captions)) for each in (with_mark, plain)]
    return sets[0], sets[1]


def _tensors(pictures: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(each.copy()).permute(2, 0, 1) for each in pictures)


def task_of(run: Run, base: ModelHandle) -> Task:
    with_look, without = own_pictures(run.count, SEEDS_OF_SETS * run.seed)
    if run.kind == TWO_SETS:
        without = own_pictures(run.count, SEEDS_OF_SETS * run.seed + 1)[1]
    concept = ForgetConcept(watermark.NAME, LOOK)
    templates = [each.replace("{concept}", "{style}") for each in STYLE_TEMPLATES]
    pairs = diversify(concept, templates, DIMENSIONS, train_count=240, test_count=64)
    return Task(base, pairs, run.settings, GenerationSettings(), with_look, without)


def perform(run: Run, base: ModelHandle) -> tuple[UnlearnedModel, AlignmentReport]:
    """Unlearn and evaluate."""
    task = task_of(run, base)
    task.check()
    unlearned = unlearn(task, Observer())
    settings = EvaluationSettings(pictures=PICTURES)
    return unlearned, evaluate(unlearned, settings, cache=LatentCache(CACHE))


def record_of(run: Run, base: ModelHandle) -> dict[str, Any]:
    """The record of a run, which is performed if there is none."""
    if run.record.exists():
        return json.loads(run.record.read_text(encoding="utf-8"))
    say(run.record.stem)
    unlearned, report = perform(run, base)
    content = report_json(unlearned, report)
    record = {
        "run": asdict(run),
        "code": code(),
        **{key: content[key] for key in OF_REPORT},
        "marked": {side: marked_share(report, side) for side in ("before", "after")},
        "alarms": [alarm["kind"] for alarm in content["alarms"]],
    }
    write_record(record, run.record)
    return record


def marked_share(report: AlignmentReport, side: str) -> float:
    """The share of all pictures of a model that show the mark: no prompt asks for it."""
    facts = [fact for part in report.comparisons.values() for fact in part.facts]
    return statistics.mean(bool(getattr(fact, f"shows_{side}")) for fact in facts)


def tuned(method: str, base: ModelHandle | None) -> float | None:
    """The rate of a method: the automatic one for ours, else the best of the search.

    Args:
        base: performs the runs of the search that are missing; None performs nothing.

    Returns:
        None if the search is not complete.
    """
    if method == OURS:
        return 0.0
    runs = [Run(method, TWO_SETS, COUNTS[0], SEARCH_SEED, rate) for rate in RATES]
    if base is None and not all(run.record.exists() for run in runs):
        return None
    scores = [harmonic_mean(_read(run, base)["after"]) for run in runs]
    return RATES[scores.index(max(scores))]


def _read(run: Run, base: ModelHandle | None) -> dict[str, Any]:
    if base is not None:
        return record_of(run, base)
    return json.loads(run.record.read_text(encoding="utf-8"))


def scored(method: str, kind: str, count: int, rate: float) -> list[Run]:
    return [Run(method, kind, count, seed, rate) for seed in SEEDS]


def table() -> str:
    """One row for each method and choice of pictures: mean ± spread over the seeds."""
    lines = [
        "| pictures | method | with the mark | other content | alignment | CMMD | runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    before: list[dict[str, Any]] = []
    rows: list[str] = []
    for kind in KINDS:
        for count in COUNTS:
            for method in METHODS:
                rate = tuned(method, None)
                runs = [] if rate is None else scored(method, kind, count, rate)
                found = [_read(run, None) for run in runs if run.record.exists()]
                if found:
                    before += found
                    rows.append(f"| {kind}, {count} | {method} | {_cells(found, 'after')} |")
    if before:
        lines.append(f"| | *before unlearning* | {_cells(before[:1], 'before')} |")
    return "\n".join([*lines, *rows])


def _cells(records: Sequence[dict[str, Any]], side: str) -> str:
    alignment = [statistics.mean(record[side]["alignment"].values()) for record in records]
    columns = [
        _spread([record["marked"][side] for record in records]),
        _spread([record[side]["cross_domain_retain"] for record in records]),
        _spread(alignment),
        _spread([record["retain_distance"] for record in records]) if side == "after" else "–",
    ]
    return " | ".join([*columns, str(len(records)) if side == "after" else "–"])


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def draw_picture(base: ModelHandle, file: Path) -> None:
    """The first pictures with the mark, before and after the recipe *look* with 8 twins."""
    _, report = perform(Run(OURS, TWINS, COUNTS[0], SEEDS[0]), base)
    parts = list(report.comparisons.values())
    prompts = [prompt for part in parts for prompt in part.prompts]
    facts = [fact for part in parts for fact in part.facts]
    old, new = (torch.cat([getattr(part, side) for part in parts]) for side in ("before", "after"))
    shown = [i for i, fact in enumerate(facts) if fact.shows_before][:6]
    plain = [i for i, fact in enumerate(facts) if not fact.shows_before][:2]
    rows = [*shown, *plain]
    grid = before_after([prompts[i] for i in rows], old[rows] / 255, new[rows] / 255)
    grid.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.look", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    parser.add_argument("--picture", type=Path, help="draw pictures before and after into this PNG")
    options = parser.parse_args()
    if options.table:
        say(table())
        return
    if not watermark.FOLDER.is_dir():
        parser.error("the model is not trained; run `python -m demo.watermark` first")
    torch.set_num_threads(1)  # the model is small
    base = load_model(watermark.FOLDER)
    if options.picture:
        draw_picture(base, options.picture)
        return
    for seed in options.seeds:
        for kind in KINDS:
            for count in COUNTS:
                for method in METHODS:
                    rate = tuned(method, base)
                    assert rate is not None
                    record_of(Run(method, kind, count, seed, rate), base)


if __name__ == "__main__":
    main()
