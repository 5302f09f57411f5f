"""The tables and the picture of the recovery benchmark."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.quality import harmonic_mean
from benchmarks.records import Record

Records = dict[str, list[Record]]
"""The records of each method."""
PANELS = {
    "textual inversion": "A new word (1 vector)",
    "textual inversion, 4 words": "Four new words",
    "relearning from ten pictures": "LoRA, 10 pictures",
    "full fine-tuning on ten pictures": "All weights, 10 pictures",
    "relearning from one picture": "LoRA, 1 picture",
    "fine-tuning on unrelated pictures": "All weights, unrelated pictures",
    "adversarial search, free embeddings": "Adversarial embeddings",
    "adversarial search, words": "Adversarial words",
    "image to image, neutral prompt": "Image to image, neutral prompt",
}
"""Attack -> its title in the picture."""


def records(results: Path) -> Records:
    """All records, by method; those of the main comparison first."""
    by_method: Records = {}
    for file in sorted(results.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        by_method.setdefault(record["method"], []).append(record)
    return dict(sorted(by_method.items(), key=lambda item: _rank(item[0])))


def _rank(method: str) -> tuple[int, str]:
    order = ("before unlearning", "ours, defaults", "ours, harden", "UCE", "never knew")
    return (order.index(method) if method in order else 2, method)


def mean_curve(runs: list[Record], attack: str) -> dict[int, float]:
    """Effort -> the share of pictures that show the concept, as a mean over the runs that have the
    whole curve. Effort 0 of an attack that takes steps are the plain prompts."""
    curves = [run["curves"][attack] | {"run": run} for run in runs if attack in run["curves"]]
    most = max((len(curve["points"]) for curve in curves), default=0)
    shares: dict[int, list[float]] = {}
    for curve in curves:
        if len(curve["points"]) < most:
            continue
        if curve["unit"] == "steps":
            after = curve["run"]["after"]
            shares.setdefault(0, []).append(after["concept_shown"] / after["pictures"])
        for point in curve["points"]:
            shares.setdefault(point["effort"], []).append(point["shown"] / point["pictures"])
    return {effort: statistics.mean(values) for effort, values in shares.items()}


def table(results: Path) -> str:
    """What each model draws, and for each attack the shares at its efforts."""
    by_method = records(results)
    return f"{_quality(by_method)}\n\n{_recovery(by_method)}"


def _quality(by_method: Records) -> str:
    lines = [
        "| model | concepts | shows the concept | IRA | CRA | harmonic mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, runs in by_method.items():
        cells = [
            _mean([1 - run["after"]["unlearning_accuracy"] for run in runs]),
            _mean([run["after"]["in_domain_retain"] for run in runs]),
            _mean([run["after"]["cross_domain_retain"] for run in runs]),
            _mean([harmonic_mean(run["after"]) for run in runs]),
        ]
        lines.append(f"| {method} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _recovery(by_method: Records) -> str:
    attacks = dict.fromkeys(
        attack for runs in by_method.values() for run in runs for attack in run["curves"]
    )
    lines = [
        "| attack | efforts | " + " | ".join(by_method) + " |",
        "| --- | --- |" + " --- |" * len(by_method),
    ]
    for attack in attacks:
        curves = {method: mean_curve(runs, attack) for method, runs in by_method.items()}
        unit = next(
            run["curves"][attack]["unit"]
            for runs in by_method.values()
            for run in runs
            if attack in run["curves"]
        )
        every = dict.fromkeys(effort for curve in curves.values() for effort in curve)
        efforts = [effort for effort in every if effort or not unit]  # rewordings take none
        cells = [
            " / ".join(f"{curve[e]:.2f}" if e in curve else "–" for e in efforts)
            for curve in curves.values()
        ]
        effort = f"{' / '.join(map(str, efforts))} {unit}" if unit else "–"
        lines.append(f"| {attack} | {effort} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[Any]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else "–"


def plot(results: Path, file: Path) -> None:
    """Draw one panel for each of ``PANELS``: the share of pictures that show the concept, by the
    effort of the attack."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_method = records(results)
    figure = Figure(figsize=(10, 8.5), dpi=110, layout="constrained")
    panels = figure.subplots(3, 3, sharey=True).flat
    for axes, (attack, title) in zip(panels, PANELS.items(), strict=True):
        ticks: list[int] = []
        for i, (method, runs) in enumerate(by_method.items()):
            curve = mean_curve(runs, attack)
            ticks = max(ticks, sorted(curve), key=len)
            style = "--" if method in ("before unlearning", "never knew") else "-"
            places = [sorted(curve).index(effort) for effort in curve]
            axes.plot(places, list(curve.values()), f"{style}o", ms=4, color=f"C{i}", label=method)
        axes.set_xticks(range(len(ticks)), map(str, ticks))
        axes.set_title(title, fontsize=10)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("% noise" if attack.startswith("image") else "steps", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("share of pictures that show the concept")
    handles, labels = next(iter(figure.axes)).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    FigureCanvasAgg(figure).print_png(file)
