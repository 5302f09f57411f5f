"""The paper's Tables 1 and 3 on the digits: ``python -m benchmarks.digits``.

Each of the ten classes is forgotten by each method, with a retain set of all other classes, and by
some with one of two classes. One JSON record a run in ``benchmarks/results/digits``; a run that has
its record is not made again.
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
from torch import Tensor

from demo.digits import DIGITS, digit_pictures
from demo.erase import DIGITS_MODEL, job_settings
from unlearn_core.cli import CACHE, say
from unlearn_core.dataset import LatentCache, draw_latents, make_training_sets
from unlearn_core.evaluation.judge import ConvJudge
from unlearn_core.methods import begin
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.objectives import RANDOM_LABEL
from unlearn_core.settings import GenerationSettings, UnlearnSettings

from .methods import PAPER
from .quality import same_settings, write_record

RESULTS = Path(__file__).parent / "results" / "digits"
README, PLOT = Path(__file__).parent / "README.md", RESULTS.with_suffix(".png")
PLOTTED = "UA, RA and FID of each method: a small mark is one digit, a large one the mean"
BEGIN, END = "<!-- digits -->", "<!-- end of digits -->"
PICTURES = 100  # of each class
DRAWING = GenerationSettings(seed=3_000_000, batch_size=100)
TUNED_ON, TUNING_SEED = "zero", 100  # the seed is not scored
SETTLED_ON = "three"  # how far ours aims beyond the parallel, by hand

METHODS: dict[str, dict[str, Any]] = {
    "fine-tune": {**PAPER, "method": "retain only"},
    "SalUn": {**PAPER, "objective": RANDOM_LABEL, "method": "GradDiff", "saliency": 0.5},
    "GradDiff": {**PAPER, "method": "GradDiff"},
    "RG": PAPER,
    "RGD": {**PAPER, "retain_batch_factor": 0},
    "ours": {},
}
OF_TWO_CLASSES = ("GradDiff", "RG", "RGD", "ours")  # have a retain set of two classes, too
RATES, WEIGHTS = (1e-4, 2e-4, 5e-4), (1.0, 5.0)
OWN_WEIGHTS = {"SalUn": (0.1, 1.0), "fine-tune": (1.0,)}
BALANCED, TWO = "balanced", "two classes"
KEEPS_ALL = "fine-tune"  # what does not forget is no rival in keeping
FIGURES = {"ua": 3, "ra": 3, "fid": 2}  # name in a record -> digits shown
OF_PAPER = {
    "fine-tune": (0.211, 0.791, 4.25),
    "SalUn": (0.512, 0.434, 14.40),
    "GradDiff": (1.000, 0.734, 14.09),
    "RG": (1.000, 0.752, 9.81),
    "RGD": (1.000, 0.771, 6.54),
}
"""UA, RA and FID of Ko et al., Table 1: CIFAR-10, mean of ten classes."""


@dataclass(frozen=True)
class Task:
    """One run: a method's settings, a digit, and how many other digits its retain set holds."""

    method: str
    digit: str
    retain: str
    settings: UnlearnSettings

    @property
    def record(self) -> Path:
        of_seed = f"-{self.settings.seed}" if self.settings.seed else ""
        rates = f"{self.settings.learning_rate:g}-{self.settings.retain_weight:g}{of_seed}"
        name = f"{self.method}-{self.digit}-{self.retain}-{rates}"
        return RESULTS / f"{name.replace(', ', ' ').replace(' ', '-')}.json"

    def read(self) -> dict[str, Any] | None:
        """The record of exactly this task, if it has been made."""
        if not self.record.exists():
            return None
        found = json.loads(self.record.read_text(encoding="utf-8"))
        return found if same_settings(found["settings"], self.settings) else None


def settings_of(method: str, rate: float, weight: float, seed: int) -> UnlearnSettings:
    own = job_settings(DIGITS[0], UnlearnSettings()).unlearn  # the demo's for a model of classes
    return replace(own, **METHODS[method], learning_rate=rate, retain_weight=weight, seed=seed)


def tuning(method: str) -> list[Task]:
    return [
        Task(method, TUNED_ON, BALANCED, settings_of(method, rate, weight, TUNING_SEED))
        for rate in RATES
        for weight in OWN_WEIGHTS.get(method, WEIGHTS)
    ]


def tuned(method: str) -> UnlearnSettings | None:
    """The best mean of UA and RA, then the lowest FID; None until the search is complete."""
    tasks = tuning(method)
    records = [task.read() for task in tasks]
    if None in records:
        return None

    def key(i: int) -> tuple[float, float]:
        found = records[i]
        assert found is not None
        return round(found["ua"] + found["ra"], 2), -found["fid"]

    return tasks[max(range(len(tasks)), key=key)].settings


def scored(method: str) -> list[Task]:
    chosen = tuned(method)
    if chosen is None:
        return []
    settings = replace(chosen, seed=0)
    sets = (BALANCED, TWO) if method in OF_TWO_CLASSES else (BALANCED,)
    return [Task(method, digit, retain, settings) for retain in sets for digit in DIGITS]


def frechet(left: Tensor, right: Tensor) -> float:
    """Frechet distance of two sets of features [N, D], [M, D] as normal distributions (Heusel et
    al. 2017): ``|m - n|^2 + tr(S + T - 2 (S T)^(1/2))``."""
    x, y = left.double(), right.double()
    s, t = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(s @ t).sqrt().real.sum()  # the product's eigenvalues are real
    distance = (x.mean(0) - y.mean(0)).square().sum() + s.trace() + t.trace() - 2 * root
    return max(0.0, distance.item())


@torch.no_grad()
def features(judge: ConvJudge, images: Tensor) -> Tensor:
    """What the judge's heads see, [N, D]."""
    maps = judge.features(images * 2 - 1)
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


def measure(
    model: ModelHandle, judge: ConvJudge, forgotten: str, cache: LatentCache | None = None
) -> dict[str, float]:
    """UA of the forgotten class, RA and FID of the others, against the real pictures of these."""
    prompts = [digit for digit in DIGITS for _ in range(PICTURES)]
    images = model.decode_latents(draw_latents(model, prompts, DRAWING, cache=cache))
    seen = judge.classify(images)["class"]
    right = {
        digit: statistics.mean(s == digit for s, p in zip(seen, prompts, strict=True) if p == digit)
        for digit in DIGITS
    }
    others = [digit for digit in DIGITS if digit != forgotten]
    kept = torch.tensor([prompt != forgotten for prompt in prompts])
    pictures, labels = digit_pictures()
    real = pictures[labels != DIGITS.index(forgotten)].expand(-1, 3, -1, -1)
    return {
        "ua": 1 - right[forgotten],
        "ra": statistics.mean(right[digit] for digit in others),
        "fid": frechet(features(judge, images[kept]), features(judge, real)),
    }


def perform(task: Task, base: ModelHandle, judge: ConvJudge) -> None:
    job = job_settings(task.digit, task.settings)
    concept = job.concept
    if task.retain == TWO:
        concept = replace(concept, replacements=concept.replacements[:2])
    job = replace(job, concept=concept, unlearn=task.settings)
    sets = make_training_sets(base, job.pairs(), job.generation, cache=LatentCache(CACHE))
    run = begin(base, sets, task.settings)
    reports = list(run)
    rises = [max(report.forget_change, report.retain_change) > 0 for report in reports]
    record = {
        "method": task.method,
        "digit": task.digit,
        "retain": task.retain,
        "settings": asdict(task.settings),
        **measure(run.result().model, judge, task.digit),
        "rise_share": statistics.mean(rises),
        "seconds": round(sum(report.seconds for report in reports), 1),
    }
    write_record(record, task.record)


def open_tasks(methods: Sequence[str]) -> list[Task]:
    tasks = [task for method in methods for task in tuning(method)]
    tasks += sorted((t for m in methods for t in scored(m)), key=lambda t: t.retain)
    return [task for task in tasks if task.read() is None]


def table(
    before: Mapping[str, dict[str, float]], retain: str, digits: Sequence[str] = DIGITS
) -> str:
    """Means over the digits, of which ``before`` has the figures of the model that was loaded."""
    lines = ["| method | classes | UA | RA | FID | raised a loss |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    means = {name: statistics.mean(before[digit][name] for digit in digits) for name in FIGURES}
    figures = " | ".join(f"{means[name]:.{places}f}" for name, places in FIGURES.items())
    lines.append(f"| *before* | {len(digits)} | {figures} | |")
    for method in METHODS:
        tasks = [t for t in scored(method) if t.retain == retain and t.digit in digits]
        found = [record for record in (task.read() for task in tasks) if record]
        if not found:
            continue
        cells = []
        for name, places in (*FIGURES.items(), ("rise_share", 2)):
            values = [record[name] for record in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.{places}f} ± {spread:.{places}f}")
        lines.append(f"| {method} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def scored_runs() -> dict[str, dict[str, dict[str, Any]]]:
    """Method -> digit -> record, with a retain set of all other classes."""
    return {
        method: {
            task.digit: record
            for task in scored(method)
            if task.retain == BALANCED and (record := task.read())
        }
        for method in METHODS
    }


def order_of_paper() -> str:
    """The methods that the paper has, too, best first; without the one that forgets nothing."""
    runs = {m: list(found.values()) for m, found in scored_runs().items() if m in OF_PAPER}
    missing = [method for method in OF_PAPER if len(runs[method]) < len(DIGITS)]
    if missing:
        return f"The order is to be told when all digits are scored with {', '.join(missing)}."
    lines = []
    for place, name, sign in ((1, "ra", -1), (2, "fid", 1)):  # a high RA, a low FID
        here = {m: sign * statistics.mean(r[name] for r in runs[m]) for m in OF_PAPER}
        theirs = {m: sign * figures[place] for m, figures in OF_PAPER.items()}
        ranks = [
            ", ".join(m for m in sorted(figures, key=figures.__getitem__) if m != KEEPS_ALL)
            for figures in (here, theirs)
        ]
        same = "the same order" if ranks[0] == ranks[1] else "**another order**"
        told = f"here {ranks[0]}; in the paper {ranks[1]}: {same}"
        lines.append(f"{name.upper()}, best first: {told}.")
    return " ".join(lines)


def against_paper() -> str:
    """What RGD and ours win over each method, digit by digit, beside what RGD wins in the paper."""
    lines = ["| | UA | RA | FID | UA, paper | RA, paper | FID, paper |"]
    lines.append("| --- |" + " --- |" * 6)
    runs = scored_runs()
    for winner in ("RGD", "ours"):
        for method, paper in OF_PAPER.items():
            digits = [d for d in DIGITS if d in runs[winner] and d in runs[method]]
            if method == winner or not digits:
                continue
            cells = []
            for name, places in FIGURES.items():
                gains = [runs[winner][d][name] - runs[method][d][name] for d in digits]
                error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
                cells.append(f"{statistics.mean(gains):+.{places}f} ± {error:.{places}f}")
            best_and_theirs = zip(OF_PAPER["RGD"], paper, strict=True)
            for (best, theirs), places in zip(best_and_theirs, FIGURES.values(), strict=True):
                cells.append(f"{best - theirs:+.{places}f}")
            lines.append(f"| {winner}, less {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def search_table() -> str:
    lines = ["| method | learning rate | retain weight | UA | RA | FID |", "| --- |" + " --- |" * 5]
    for method in METHODS:
        chosen = tuned(method)
        for task in tuning(method):
            found = task.read()
            if found is None:
                continue
            shown = f"**{method}**" if task.settings == chosen else method
            figures = " | ".join(f"{found[name]:.{places}f}" for name, places in FIGURES.items())
            rate, weight = task.settings.learning_rate, task.settings.retain_weight
            lines.append(f"| {shown} | {rate:g} | {weight:g} | {figures} |")
    return "\n".join(lines)


def plot(before: Mapping[str, dict[str, float]]) -> None:
    """Each figure over the ten digits: a small mark a digit, a large one the mean, and a line where
    the model was that was loaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110, layout="constrained")
    runs = scored_runs()
    methods = list(METHODS)[::-1]
    titles = ("UA (right: forgotten)", "RA (right: kept)", "FID (left: kept)")
    panels = zip(figure.subplots(1, 3, sharey=True), FIGURES, titles, strict=True)
    for axes, name, title in panels:
        for place, method in enumerate(methods):
            values = [record[name] for record in runs[method].values()]
            if values:
                axes.plot(values, [place] * len(values), "o", ms=3, alpha=0.4, color="C0")
                axes.plot(statistics.mean(values), place, "D", ms=8, color="C0")
        axes.axvline(
            statistics.mean(before[digit][name] for digit in DIGITS), color="#777", linewidth=0.8
        )
        axes.set_yticks(range(len(methods)), methods)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(PLOT)


def write_tables(base: ModelHandle, judge: ConvJudge) -> None:
    before = {digit: measure(base, judge, digit, LatentCache(CACHE)) for digit in DIGITS}
    plot(before)
    others = [digit for digit in DIGITS if digit not in (TUNED_ON, SETTLED_ON)]
    text = "\n\n".join(
        (
            BEGIN,
            f"![{PLOTTED}]({PLOT.relative_to(README.parent).as_posix()})",
            "### Retain set with all other classes",
            table(before, BALANCED),
            f"### The same without *{TUNED_ON}* and *{SETTLED_ON}*, by which choices were made",
            table(before, BALANCED, others),
            "### Retain set with two other classes",
            table(before, TWO),
            "### Beside the paper's Table 1",
            against_paper(),
            order_of_paper(),
            f"### The search on *{TUNED_ON}*, and in bold what it chose",
            search_table(),
            END,
        )
    )
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(head + text + rest.partition(END)[2], encoding="utf-8")
    say(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tables", action="store_true", help="only write what has been measured")
    options = parser.parse_args()
    base, judge = load_model(DIGITS_MODEL), ConvJudge.load(DIGITS_MODEL / "evaluation")
    while not options.tables and (waiting := open_tasks(options.methods)):
        say(f"{len(waiting)} open: {waiting[0].record.stem}")
        perform(waiting[0], base, judge)
    write_tables(base, judge)


if __name__ == "__main__":
    main()
