"""The evaluation in words, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from ..evaluation.bootstrap import Interval, wilson
from ..evaluation.results import AlignmentReport, Estimate, Metrics
from ..foundation.version import VERSION
from ..judging.probes import PROBES
from ..prompts.concept import ForgetConcept
from ..unlearning.recipes import described
from ..unlearning.results import UnlearnedModel
from .figures import Figure, figures, probe_figures

WIDTH = 48  # of a label in the table


def table(report: AlignmentReport) -> str:
    """The figures before and after, one a line; a dash stands for what nobody could judge."""
    if not report.also:
        return _table(report)
    return "\n\n".join(f"{part.concept.name}\n{_table(part)}" for part in report.each)


def _table(report: AlignmentReport) -> str:
    lines = [f"{'':<{WIDTH}}{'before':>9}{'after':>9}  95 % interval"]
    lines += [_line(figure) for figure in figures(report)]
    for part, (before, after) in (report.detections or {}).items():
        lines.append(f"{'NudeNet: ' + part.lower():<{WIDTH}}{before:>9}{after:>9}")
    if report.probes:
        lines.append("the concept shows, probed with")
        lines += [_line(figure, indent="  ") for figure in probe_figures(report)]
    lines.append(f"{'pictures of each kind of prompt':<{WIDTH}}{report.after.pictures:>9}")
    return "\n".join(lines)


def _line(figure: Figure, indent: str = "") -> str:
    label = f"{indent + figure.label:<{WIDTH}}"
    interval = (
        f"  {figure.interval.low:.3f} to {figure.interval.high:.3f}" if figure.interval else ""
    )
    return f"{label}{number(figure.before):>9}{number(figure.after):>9}{interval}"


def summary(report: AlignmentReport) -> str:
    """What was suppressed, what was kept and what was tested, in a few sentences a concept that
    claim no more than was seen; then what could not be judged."""
    paragraphs = [" ".join(sentences(part)) for part in report.each]
    return "\n".join([*paragraphs, *missing(report)])


def missing(report: AlignmentReport) -> list[str]:
    """What could not be judged for any of the concepts, and the cure; each once."""
    return list(dict.fromkeys(line for part in report.each for line in part.missing))


def sentences(report: AlignmentReport) -> list[str]:
    """One concept's part of ``summary``."""
    found = [_forgotten(report), _kept(report), _probed(report), _tested(report)]
    return [sentence for sentence in found if sentence]


def _forgotten(report: AlignmentReport) -> str:
    name, shown, count = report.concept.name, report.after.concept_shown, report.after.pictures
    if shown is None:
        return f"Nobody here can judge whether {name!r} shows: look at the pictures."
    return (
        f"{name!r} shows in {shown} of {count} pictures that ask for it, was "
        f"{report.before.concept_shown}. From so many pictures, the true share is put at "
        f"{_range(wilson(shown, count))} (95 % interval)."
    )


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _kept(report: AlignmentReport) -> str:
    kept = []
    for name, what in (
        ("in_domain_retain", "its alternatives are right in"),
        ("cross_domain_retain", "other content in"),
    ):
        after, interval = getattr(report.after, name), report.intervals.get(name)
        if after is not None:
            sure = f" ({_range(interval)})" if interval else ""
            before = _percent(getattr(report.before, name))
            kept.append(f"{what} {_percent(after)}{sure}, was {before}")
    return f"Of everything else, {', and '.join(kept)}." if kept else ""


def _probed(report: AlignmentReport) -> str:
    judged = [probe for probe in report.probes if probe.shown_after is not None]
    if not judged:
        return ""
    counts = ", ".join(
        f"{probe.name} {probe.shown_after} of {len(probe.prompts)} (was {probe.shown_before})"
        for probe in judged
    )
    return f"When it is probed, it shows in: {counts}."


def _tested(report: AlignmentReport) -> str:
    tried = [probe.name for probe in report.probes]
    untried = [name for name in PROBES if name not in tried]
    tested = _listed(["prompts in the same wording with held-out words", *tried])
    return f"Tested: {tested}." + (f" Not tested: {_listed(untried)}." if untried else "")


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def report_json(
    unlearned: UnlearnedModel, report: AlignmentReport | None, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The contents of ``report.json``: settings, seconds of each phase, figures, every step.

    Concept and figures of the first concept; those of further ones are listed under ``also``.
    """
    each = unlearned.pairs.each
    judged = report.each if report else [None] * len(each)
    first, *others = [_concept_json(p.concept, r) for p, r in zip(each, judged, strict=True)]
    return {
        **first,
        "version": VERSION,
        "model": {
            "name": unlearned.base.info.name,
            "family": unlearned.base.info.family,
            "fingerprint": unlearned.base.info.fingerprint,
        },
        "recipe": described(unlearned.settings),
        "settings": asdict(unlearned.settings),
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "scorer": report.scorer if report else None,
        "missing": missing(report) if report else [],
        "also": others,
        "steps": [step.as_json() for step in unlearned.reports],
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
    """What is known beside the figures themselves; intervals are of 95 %."""
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
    """As tables show it."""
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".removesuffix(".0") + " %"
