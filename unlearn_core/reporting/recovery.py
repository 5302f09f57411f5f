"""Recovery curves in words, as figures and as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..evaluation.bootstrap import wilson
from ..evaluation.results import AlignmentReport
from ..judging.curves import NOISE, STEPS, Curve, Point
from .figures import Figure

PLAIN = "with the plain prompts"


def recovery_curves(report: AlignmentReport) -> list[Curve]:
    """The attacks with an effort whose pictures could be judged."""
    return [
        curve for curve in report.curves if curve.unit and curve.points[0].shown_after is not None
    ]


def with_plain_prompts(curve: Curve, report: AlignmentReport) -> Curve:
    """The curve of an attack that takes steps, with the evaluation's plain prompts as its start."""
    if curve.unit != STEPS:
        return curve
    start = Point(0, PLAIN, report.before.concept_shown, report.after.concept_shown)
    return replace(curve, points=(start, *curve.points))


def sentence(point: Point, total: int) -> str:
    """Such as "after 60 steps of training on 10 pictures: in 12 of 32 (before unlearning: 30)"."""
    before, after = point.shown_before, point.shown_after
    return f"{point.label}: in {after} of {total} (before unlearning: {before})"


def strongest(report: AlignmentReport) -> str:
    """A sentence on the attack that brought the concept back most often; empty if fewer than two
    were judged. Image to image does not count: its pictures contain the concept from the start."""
    curves = [curve for curve in recovery_curves(report) if curve.unit != NOISE]
    if len(curves) < 2:
        return ""
    worst = max(curves, key=lambda curve: curve.worst.shown_after or 0)
    total = len(worst.prompts)
    return f"The strongest attack was {worst.name}: {sentence(worst.worst, total)}."


def recovery_figures(report: AlignmentReport) -> list[Figure]:
    """The share of pictures that show the concept at the worst point of each curve, without the
    attacks of a single effort."""
    return [_figure(curve) for curve in report.curves if len(curve.points) > 1]


def _figure(curve: Curve) -> Figure:
    point, total = curve.worst, len(curve.prompts)
    label = f"{curve.name}, {point.effort} {curve.unit}"
    before, after = _share(point.shown_before, total), _share(point.shown_after, total)
    interval = None if point.shown_after is None else wilson(point.shown_after, total)
    return Figure(label, label, before, after, interval)


def recovery_json(report: AlignmentReport) -> list[dict[str, Any]]:
    """Every curve with an effort: its points, as numbers of pictures that show the concept."""
    return [
        {
            "attack": curve.name,
            "unit": curve.unit,
            "pictures": len(curve.prompts),
            "points": [
                {
                    "effort": point.effort,
                    "label": point.label,
                    "before": point.shown_before,
                    "after": point.shown_after,
                }
                for point in curve.points
            ],
        }
        for curve in report.curves
        if curve.unit
    ]


def _share(count: int | None, total: int) -> float | None:
    return None if count is None else count / total
