"""Drawings of the HTML report, as SVG that takes its colours from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..unlearn import StepReport
from .figures import Figure

WIDTH, HEIGHT = 720, 300  # of the loss chart, in its own units
LEFT, RIGHT = 52, 8
PANELS = {"forget": (10, 120), "retain": (144, 254)}  # each of its own scale: top, bottom
POINTS = 600  # of a line; more than a screen has room for
LINES = 2  # of a grid


def loss_chart(reports: Sequence[StepReport]) -> str:
    """Forget and retain loss over the steps (of a long run, every so many), and a tick below each
    at which the two gradients were in conflict; empty where no loss is a number."""
    finite = [r for r in reports if math.isfinite(r.forget_loss) and math.isfinite(r.retain_loss)]
    if not finite:
        return ""
    shown = finite[:: max(1, len(finite) // POINTS)]
    last = max(2, reports[-1].step)

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / (last - 1)

    steps = [x(report.step) for report in shown]
    parts = [
        *_panel("forget", steps, [report.forget_loss for report in shown]),
        *_panel("retain", steps, [report.retain_loss for report in shown]),
    ]
    floor = PANELS["retain"][1] + 6
    parts += [
        f'<line class="conflict" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 7}"/>'
        for at, report in zip(steps, shown, strict=True)
        if report.conflict
    ]
    for step, anchor in ((1, "start"), (last, "end")):
        parts.append(
            f'<text x="{x(step):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">step {step}</text>'
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Forget and retain loss over {last} steps">{"".join(parts)}</svg>'
    )


def _panel(name: str, steps: Sequence[float], losses: Sequence[float]) -> list[str]:
    top, bottom = PANELS[name]
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / span

    parts = []
    for i in range(LINES + 1):
        value = low + span * i / LINES
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.2g}</text>'
        )
    points = " ".join(f"{x:.1f},{y(loss):.1f}" for x, loss in zip(steps, losses, strict=True))
    return [*parts, f'<polyline class="{name}" points="{points}"/>']


def interval_bar(figure: Figure) -> str:
    """A figure of 0..1 on a line: a ring before, a dot after, a band where it may truly be."""
    if figure.after is None or figure.interval is None:
        return ""
    ends = (figure.interval.low, figure.interval.high)
    if not all(0 <= value <= 1 for value in (figure.after, *ends)):
        return ""

    def x(value: float) -> float:
        return 6 + 124 * value

    ring = ""
    if figure.before is not None and 0 <= figure.before <= 1:
        ring = f'<circle class="before" cx="{x(figure.before):.1f}" cy="8" r="3.5"/>'
    return (
        '<svg class="range" viewBox="0 0 136 16" aria-hidden="true">'
        '<line class="track" x1="6" x2="130" y1="8" y2="8"/>'
        f'<line class="sure" x1="{x(ends[0]):.1f}" x2="{x(ends[1]):.1f}" y1="8" y2="8"/>'
        f'{ring}<circle class="after" cx="{x(figure.after):.1f}" cy="8" r="4"/></svg>'
    )
