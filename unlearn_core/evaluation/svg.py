"""Drawings of the HTML report, as SVG that takes its colours from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..unlearn import StepReport
from .figures import Figure

WIDTH, HEIGHT = 720, 240  # of the loss chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 46
POINTS = 600  # of a line; more than a screen has room for
LINES = 4  # of the grid


def loss_chart(reports: Sequence[StepReport]) -> str:
    """Forget and retain loss over the steps (of a long run, every so many), and a tick below each
    at which the two gradients were in conflict; empty where no loss is a number."""
    finite = [r for r in reports if math.isfinite(r.forget_loss) and math.isfinite(r.retain_loss)]
    if not finite:
        return ""
    shown = finite[:: max(1, len(finite) // POINTS)]
    values = [v for r in shown for v in (r.forget_loss, r.retain_loss)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(2, reports[-1].step)

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / (last - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / span

    parts = []
    for i in range(LINES + 1):
        value = low + span * i / LINES
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.2g}</text>'
        )
    for name in ("retain", "forget"):
        points = " ".join(f"{x(r.step):.1f},{y(getattr(r, name + '_loss')):.1f}" for r in shown)
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    floor = HEIGHT - BOTTOM + 6
    parts += [
        f'<line class="conflict" x1="{x(r.step):.1f}" x2="{x(r.step):.1f}" y1="{floor}" '
        f'y2="{floor + 7}"/>'
        for r in shown
        if r.conflict
    ]
    for step, anchor in ((1, "start"), (last, "end")):
        parts.append(
            f'<text x="{x(step):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">step {step}</text>'
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Forget and retain loss over {last} steps">{"".join(parts)}</svg>'
    )


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
