"""The figures of a report, with labels and intervals."""

from __future__ import annotations

from dataclasses import dataclass

from ..evaluation.bootstrap import Interval, wilson
from ..evaluation.results import AlignmentReport
from ..judging.probes import ProbeResult

LABELS: dict[str, str] = {
    "unlearning_accuracy": "concept absent (UA)",
    "in_domain_retain": "alternatives kept (IRA)",
    "cross_domain_retain": "content kept (CRA)",
    "cross_domain_forget": "content kept under the forgotten prompts",
    "alignment_forget": "alignment, forget prompts",
    "alignment_retain_train": "alignment, retain train prompts",
    "alignment_retain_test": "alignment, retain test prompts",
}
CHANGE, DISTANCE = "picture_change", "retain_distance"
CHANGE_LABEL = "change of a retain picture (1 - CLIP cosine)"
DISTANCE_LABEL = "change of the retain pictures as a whole (CMMD)"


@dataclass(frozen=True)
class Figure:
    """One figure before and after unlearning; None where it is not available.

    Attributes:
        key: its name in ``Metrics`` or ``AlignmentReport``, or the name of the probe.
        interval: of the figure after unlearning.
    """

    key: str
    label: str
    before: float | None
    after: float | None
    interval: Interval | None


def figures(report: AlignmentReport) -> list[Figure]:
    """All figures of one concept except those of its probes."""
    result = [
        Figure(
            name,
            label,
            getattr(report.before, name),
            getattr(report.after, name),
            report.intervals.get(name),
        )
        for name, label in LABELS.items()
    ]
    change = report.picture_change
    mean, interval = (change.mean, change.interval) if change else (None, None)
    result.append(Figure(CHANGE, CHANGE_LABEL, None, mean, interval))
    result.append(Figure(DISTANCE, DISTANCE_LABEL, None, report.retain_distance, None))
    return result


def probe_figures(report: AlignmentReport) -> list[Figure]:
    """For each probe, the share of pictures that show the concept."""
    return [Figure(p.name, p.name, p.before, p.after, probe_interval(p)) for p in report.probes]


def probe_interval(probe: ProbeResult) -> Interval | None:
    """The interval of a probe's share after unlearning."""
    if probe.shown_after is None:
        return None
    return wilson(probe.shown_after, len(probe.prompts))
