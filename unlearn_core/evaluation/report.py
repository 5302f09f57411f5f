"""The evaluation in words, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ..concepts import ForgetConcept
from ..unlearn import UnlearnedModel
from .evaluate import AlignmentReport, Metrics

LABELS: dict[str, str] = {
    "unlearning_accuracy": "concept absent (UA)",
    "in_domain_retain": "alternatives kept (IRA)",
    "cross_domain_retain": "content kept (CRA)",
    "cross_domain_forget": "content kept under the forgotten prompts",
    "alignment_forget": "alignment, forget prompts",
    "alignment_retain_train": "alignment, retain train prompts",
    "alignment_retain_test": "alignment, retain test prompts",
}


def table(report: AlignmentReport) -> str:
    """The figures before and after, one a line; a dash stands for what nobody could judge."""
    if not report.also:
        return _table(report)
    return "\n\n".join(f"{part.concept.name}\n{_table(part)}" for part in report.each)


def _table(report: AlignmentReport) -> str:
    lines = [f"{'':<42}{'before':>9}{'after':>9}"]
    for name, label in LABELS.items():
        before, after = (getattr(side, name) for side in (report.before, report.after))
        lines.append(f"{label:<42}{_number(before):>9}{_number(after):>9}")
    distance = _number(report.retain_distance)
    lines.append(f"{'change of the retain pictures (CMMD)':<42}{'':>9}{distance:>9}")
    lines.append(f"{'pictures of each kind of prompt':<42}{report.after.pictures:>9}")
    return "\n".join(lines)


def summary(report: AlignmentReport) -> str:
    """What was suppressed and what was kept, in two sentences a concept that claim no more than was
    seen."""
    return "\n".join(map(_summary, report.each))


def _summary(report: AlignmentReport) -> str:
    name, before, after = report.concept.name, report.before, report.after
    if after.concept_shown is None:
        forgotten = f"Nobody here can judge whether {name!r} shows: look at the pictures."
    else:
        forgotten = (
            f"{name!r} shows in {after.concept_shown} of {after.pictures} pictures that ask for "
            f"it, was {before.concept_shown}."
        )
    kept = [
        f"{what} {_percent(getattr(after, field))} (was {_percent(getattr(before, field))})"
        for field, what in (
            ("in_domain_retain", "its alternatives are right in"),
            ("cross_domain_retain", "other content in"),
        )
        if getattr(after, field) is not None
    ]
    if not kept:
        return forgotten
    return f"{forgotten} Of everything else, {' and '.join(kept)}."


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
        "model": {
            "name": unlearned.base.info.name,
            "family": unlearned.base.info.family,
            "fingerprint": unlearned.base.info.fingerprint,
        },
        "settings": asdict(unlearned.settings),
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "also": others,
        "steps": [asdict(step) for step in unlearned.reports],
    }


def _concept_json(concept: ForgetConcept, report: AlignmentReport | None) -> dict[str, Any]:
    return {
        "concept": asdict(concept),
        "before": _figures(report.before) if report else None,
        "after": _figures(report.after) if report else None,
        "retain_distance": report.retain_distance if report else None,
    }


def _figures(metrics: Metrics) -> dict[str, Any]:
    return {
        **{f.name: getattr(metrics, f.name) for f in fields(metrics) if "alignment" not in f.name},
        "alignment": {
            "forget": metrics.alignment_forget,
            "retain_train": metrics.alignment_retain_train,
            "retain_test": metrics.alignment_retain_test,
        },
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
