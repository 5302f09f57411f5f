"""SVG drawings of the HTML report; their colours come from its style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..foundation.plurals import count_of
from ..judging.curves import Curve
from ..unlearning.results import StepReport
from .figures import Figure
from .loss_chart import (
    DASH,
    HEIGHT,
    STROKE,
    TEXT,
    WIDTH,
    Line,
    Polyline,
    Shape,
    has_losses,
    loss_chart,
)


def loss_svg(reports: Sequence[StepReport]) -> str:
    """The loss chart of a run; empty if no loss is finite."""
    if not has_losses(reports):
        return ""
    steps = count_of(len(reports), "step")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="{TEXT}" role="img" '
        f'aria-label="Forget loss, retain loss and cosine of the gradients over {steps}">'
        f"{''.join(_element(shape) for shape in loss_chart(reports))}</svg>"
    )


def _element(shape: Shape) -> str:
    if isinstance(shape, Line):
        (x1, y1), (x2, y2) = shape.start, shape.end
        return (
            f'<line class="{shape.kind}" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" '
            f'stroke-width="{shape.width:.2f}"/>'
        )
    if isinstance(shape, Polyline):
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in shape.points)
        dashes = f' stroke-dasharray="{DASH}"' if shape.dashed else ""
        return f'<polyline class="{shape.kind}" points="{points}" stroke-width="{STROKE}"{dashes}/>'
    x, y = shape.at
    return (
        f'<text class="{shape.kind}" x="{x:.2f}" y="{y:.2f}" text-anchor="{shape.anchor}">'
        f"{escape(shape.text)}</text>"
    )


def interval_bar(figure: Figure) -> str:
    """A figure of 0..1 on a line: a ring for the value before, a dot for the value after, a band
    for its interval. Empty for other figures."""
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
        f'<line class="interval" x1="{x(ends[0]):.1f}" x2="{x(ends[1]):.1f}" y1="8" y2="8"/>'
        f'{ring}<circle class="after" cx="{x(figure.after):.1f}" cy="8" r="4"/></svg>'
    )


def recovery_svg(curve: Curve) -> str:
    """The share of pictures that show the concept by the effort of an attack: a dashed line for the
    model before unlearning, a solid one for the model after."""
    total, count = len(curve.prompts), len(curve.points)

    def x(i: int) -> float:
        return 46 + (188 * i / (count - 1) if count > 1 else 100)

    def y(shown: int | None) -> float:
        return 10 + 90 * (1 - (shown or 0) / total)

    grid = "".join(
        f'<line class="track" x1="42" x2="238" y1="{y(shown):.1f}" y2="{y(shown):.1f}"/>'
        f'<text x="38" y="{y(shown) + 4:.1f}" text-anchor="end">{percent}</text>'
        for shown, percent in ((0, "0 %"), (total, "100 %"))
    )
    lines = ""
    for side in ("before", "after"):
        shares = [(x(i), y(getattr(p, f"shown_{side}"))) for i, p in enumerate(curve.points)]
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in shares)
        dots = [f'<circle class="{side}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in shares]
        lines += f'<polyline class="{side}" points="{corners}"/>{"".join(dots)}'
    labels = "".join(
        f'<text x="{x(i):.1f}" y="118" text-anchor="middle">{point.effort}</text>'
        for i, point in enumerate(curve.points)
    )
    return (
        '<svg class="recovery" viewBox="0 0 250 136" font-size="11" aria-hidden="true">'
        f'{grid}{lines}{labels}<text x="140" y="133" text-anchor="middle">{escape(curve.unit)}'
        "</text></svg>"
    )
