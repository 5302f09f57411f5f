"""The evaluation as sentences, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from ..evaluation.bootstrap import Interval, wilson
from ..evaluation.results import AlignmentReport, Estimate, Metrics
from ..foundation.cost import Cost
from ..foundation.plurals import count_of
from ..foundation.version import VERSION
from ..judging.probes import PROBES
from ..prompts.concept import ForgetConcept
from ..unlearning.recipes import describe
from ..unlearning.results import UnlearnedModel
from .figures import Figure, figures, probe_figures
from .recovery import recovery_figures, recovery_json, strongest

WIDTH = 48  # of the table's label column
THOROUGH_ONLY = ("full fine-tuning", "adversarial search", "image to image")
"""The beginnings of the names of attacks that only thorough probes perform."""


def table(report: AlignmentReport) -> str:
    """The figures before and after, one per line; a dash for those that no evaluator can judge."""
    if not report.also:
        return _table(report)
    return "\n\n".join(f"{part.concept.name}\n{_table(part)}" for part in report.each)


def _table(report: AlignmentReport) -> str:
    lines = [f"{'':<{WIDTH}}{'before':>9}{'after':>9}  95 % interval"]
    lines += [_line(figure) for figure in figures(report)]
    for part, (before, after) in (report.detections or {}).items():
        lines.append(f"{'NudeNet: ' + part.lower():<{WIDTH}}{before:>9}{after:>9}")
    if report.curves:
        lines.append("share of pictures with the concept, by probe")
        probes = (*probe_figures(report), *recovery_figures(report))
        lines += [_line(figure, indent="  ") for figure in probes]
    lines.append(f"{'pictures of each kind of prompt':<{WIDTH}}{report.after.pictures:>9}")
    return "\n".join(lines)


def _line(figure: Figure, indent: str = "") -> str:
    label = f"{indent + figure.label:<{WIDTH}}"
    interval = (
        f"  {figure.interval.low:.3f} to {figure.interval.high:.3f}" if figure.interval else ""
    )
    return f"{label}{number(figure.before):>9}{number(figure.after):>9}{interval}"


def summary(report: AlignmentReport) -> str:
    """A few sentences per concept on what was suppressed, preserved and tested; then messages about
    figures that could not be measured. No sentence claims more than was measured."""
    paragraphs = [" ".join(sentences(part)) for part in report.each]
    return "\n".join([*paragraphs, *missing(report)])


def missing(report: AlignmentReport) -> list[str]:
    """Messages about figures that could not be measured, each with its remedy and only once."""
    return list(dict.fromkeys(line for part in report.each for line in part.missing))


def sentences(report: AlignmentReport) -> list[str]:
    """One concept's part of ``summary``."""
    parts = [
        _forgetting(report),
        _retention(report),
        _probes(report),
        strongest(report),
        _tests(report),
    ]
    return [sentence for sentence in parts if sentence]


def _forgetting(report: AlignmentReport) -> str:
    name, after, count = report.concept.name, report.after.concept_shown, report.after.pictures
    if after is None:
        return f"No evaluator can judge whether {name!r} is in a picture: look at the pictures."
    return (
        f"{name!r} is in {after} of {count_of(count, 'picture')} prompted for it; before "
        f"unlearning, in {report.before.concept_shown}. With this number of pictures, the true "
        f"share is {_range(wilson(after, count))} (95 % interval)."
    )


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _retention(report: AlignmentReport) -> str:
    parts = []
    for name, subject in (
        ("in_domain_retain", "the alternatives are correct in"),
        ("cross_domain_retain", "other content is correct in"),
    ):
        after, interval = getattr(report.after, name), report.intervals.get(name)
        if after is not None:
            interval_text = f" ({_range(interval)})" if interval else ""
            before = _percent(getattr(report.before, name))
            parts.append(f"{subject} {_percent(after)}{interval_text}, before {before}")
    if not parts:
        return ""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _probes(report: AlignmentReport) -> str:
    judged = [probe for probe in report.probes if probe.shown_after is not None]
    if not judged:
        return ""
    counts = ", ".join(
        f"{probe.name} {probe.shown_after} of {len(probe.prompts)} (before {probe.shown_before})"
        for probe in judged
    )
    return f"Pictures with the concept, by probe: {counts}."


def _tests(report: AlignmentReport) -> str:
    probes = [curve.name for curve in report.curves]
    others = [name for name in (*PROBES, *THOROUGH_ONLY) if not any(name in p for p in probes)]
    tests = _enumeration(["prompts in the same wording with held-out words", *probes])
    return f"Tested: {tests}." + (f" Not tested: {_enumeration(others)}." if others else "")


def _enumeration(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def report_json(
    unlearned: UnlearnedModel, report: AlignmentReport | None, cost: Cost | None = None
) -> dict[str, Any]:
    """The content of ``report.json``: settings, cost, figures, every step, alarms.

    The concept and figures at the top are the first concept's; ``also`` lists those of the others.

    Args:
        cost: of everything; None for the cost of unlearning and evaluation.
    """
    cost = cost or (unlearned.cost + report.cost if report else unlearned.cost)
    each = unlearned.pairs.each
    reports = report.each if report else [None] * len(each)
    first, *others = [_concept_json(p.concept, r) for p, r in zip(each, reports, strict=True)]
    return {
        **first,
        "version": VERSION,
        "model": {
            "name": unlearned.base.info.name,
            "family": unlearned.base.info.family,
            "fingerprint": unlearned.base.info.fingerprint,
        },
        "recipe": describe(unlearned.settings, default_scope=unlearned.base.default_scope),
        "settings": asdict(unlearned.settings),
        "seconds": {phase: round(value, 2) for phase, value in cost.seconds.items()},
        "cost": cost.as_json(),
        "scorer": report.scorer if report else None,
        "missing": missing(report) if report else [],
        "also": others,
        "resumed_at": unlearned.resumed_at,
        "steps": [step.as_json() for step in unlearned.reports],
        "alarms": [alarm.as_json() for alarm in unlearned.alarms],
    }


def _concept_json(concept: ForgetConcept, report: AlignmentReport | None) -> dict[str, Any]:
    return {
        "concept": asdict(concept),
        "before": _metrics_json(report.before) if report else None,
        "after": _metrics_json(report.after) if report else None,
        "retain_distance": report.retain_distance if report else None,
        **(_details(report) if report else {}),
    }


def _details(report: AlignmentReport) -> dict[str, Any]:
    """Summary, intervals (of 95 %), changes, probes and facts about each picture."""
    probes = {
        f.key: {"before": f.before, "after": f.after, "interval": _ends(f.interval)}
        for f in probe_figures(report)
    }
    return {
        "summary": sentences(report),
        "intervals": {name: _ends(interval) for name, interval in report.intervals.items()},
        "alignment_change": {n: _estimate(c) for n, c in report.alignment_change.items()},
        "picture_change": _estimate(report.picture_change) if report.picture_change else None,
        "neighbours": list(report.neighbours),
        "detections": dict(report.detections) if report.detections is not None else None,
        "probes": probes,
        "recovery": recovery_json(report),
        "each_picture": {
            name: [
                {"prompt": prompt, **asdict(facts)}
                for prompt, facts in zip(comparison.prompts, comparison.facts, strict=True)
            ]
            for name, comparison in report.comparisons.items()
        },
    }


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    return {
        **{f.name: getattr(metrics, f.name) for f in fields(metrics) if "alignment" not in f.name},
        "alignment": {
            "forget": metrics.alignment_forget,
            "retain_train": metrics.alignment_retain_train,
            "retain_test": metrics.alignment_retain_test,
        },
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "interval": _ends(estimate.interval)}


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def number(value: float | None) -> str:
    """A figure as text for a table; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".removesuffix(".0") + " %"
