"""The loss chart as plain shapes, from which both the SVG and the PNG are drawn.

Three bands share the x axis of steps: forget loss, retain loss (each on its own scale, since one
may be hundreds of times the other) and the cosine of the two gradients.

Long runs are thinned, by the same rule as in the live panel: the chart contains the first step,
every ``stride``-th step after it and the last, where ``stride`` is the smallest power of two that
leaves at most ``POINTS`` steps, including the last. Losses are drawn at those steps only. The
cosine bars of a step also cover the steps skipped just before it: they reach to the strongest
conflict and to the strongest agreement among them, so that no conflict is hidden. The legend counts
the conflicts of all steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..foundation.plurals import count_of
from ..unlearning.results import StepReport

POINTS = 600  # more than the chart can resolve
WIDTH, HEIGHT = 600, 358  # in units of the chart, like all lengths below
TEXT = 13  # font size
LEFT, RIGHT = 72, 588  # edges of the bands
STEP_LABELS = 346  # baseline
STROKE = 2.0
DASH = 5.0  # length of a dash and of a gap, without the round caps
HAIRLINE = 0.5
DOT = 5.0  # edge of a point between two gaps
WIDEST_BAR, SHORTEST_BAR = 8.0, 2.0  # so that a cosine near 0 remains visible
NARROW = 2.0  # with less space than this, bars are drawn without gaps
DIGITS = range(2, 5)  # of a label; a loss whose extremes have equal labels is drawn flat


@dataclass(frozen=True)
class Line:
    """A straight stroke with flat ends."""

    kind: str
    start: tuple[float, float]
    end: tuple[float, float]
    width: float = HAIRLINE


@dataclass(frozen=True)
class Polyline:
    """A stroke ``STROKE`` wide with round ends."""

    kind: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text.

    Attributes:
        at: position of the anchor on the baseline.
        anchor: "start", "middle" or "end".
    """

    kind: str
    at: tuple[float, float]
    text: str
    anchor: str = "start"


Shape = Line | Polyline | Text


@dataclass(frozen=True)
class Band:
    """The vertical extent of a band and the baseline of its title."""

    title: float
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    def y(self, share: float) -> float:
        """The y coordinate of a share of the height; 0 is the bottom, 1 the top."""
        return self.bottom - share * (self.bottom - self.top)


FORGET = Band(20, 32, 112)
RETAIN = Band(142, 154, 234)
COSINE = Band(264, 276, 326)


def has_losses(reports: Sequence[StepReport]) -> bool:
    """Whether any loss of the run is finite."""
    return any(math.isfinite(r.forget_loss) or math.isfinite(r.retain_loss) for r in reports)


def loss_chart(reports: Sequence[StepReport]) -> tuple[Shape, ...]:
    """The shapes of a run's chart, from back to front. Values that are not finite leave gaps;
    without steps, the bands are empty.

    The kinds of the shapes are "forget", "retain", "agree", "conflict", "grid" and "label".
    """
    indices = charted_steps(len(reports))
    steps = _columns([reports[i].step for i in indices])
    losses = {
        "forget": (FORGET, [reports[i].forget_loss for i in indices]),
        "retain": (RETAIN, [reports[i].retain_loss for i in indices]),
    }
    shapes: list[Shape] = []
    for kind, (band, values) in losses.items():
        shapes += _losses(kind, band, steps, values)
    shapes += _cosines(reports, indices, steps)
    if not reports:
        return (*shapes, Text("label", ((LEFT + RIGHT) / 2, STEP_LABELS), "no steps", "middle"))
    ends = {reports[0].step: (LEFT, "start"), reports[-1].step: (RIGHT, "end")}
    if len(ends) == 1:
        ends = {reports[0].step: (steps[0], "middle")}
    for step, (x, anchor) in ends.items():
        shapes.append(Text("label", (x, STEP_LABELS), f"step {step}", anchor))
    if len(indices) < len(reports):
        note = f"losses: one step in {indices[1]}"
        shapes.append(Text("label", ((LEFT + RIGHT) / 2, STEP_LABELS), note, "middle"))
    return tuple(shapes)


def charted_steps(count: int) -> list[int]:
    """Indices of the steps in the chart, by the rule in this module's docstring."""
    stride = 1
    while (count - 2) // stride + 2 > POINTS:
        stride *= 2
    return [*range(0, count - 1, stride), count - 1] if count else []


def _columns(steps: Sequence[int]) -> list[float]:
    """The x coordinate of each step, the middle of its share of the width."""
    return [
        LEFT + (RIGHT - LEFT) * (step - steps[0] + 0.5) / (steps[-1] - steps[0] + 1)
        for step in steps
    ]


def _losses(kind: str, band: Band, steps: Sequence[float], values: Sequence[float]) -> list[Shape]:
    """The shapes of one loss: title, rules, labels of the extremes and the curve."""
    dashed = kind == "retain"
    sample = ((LEFT, band.title - 4.5), (LEFT + 24, band.title - 4.5))
    shapes: list[Shape] = [
        Polyline(kind, sample, dashed),
        Text(kind, (LEFT + 32, band.title), f"{kind} loss"),
        _rule(band.top),
        _rule(band.bottom),
    ]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return shapes
    low, high = min(finite), max(finite)
    bottom, top = _labels(low, high)
    if bottom == top:
        shapes.append(_axis_label(kind, band.middle, bottom))
        low, high = low - 1, low + 1
    else:
        shapes += [_axis_label(kind, band.top, top), _axis_label(kind, band.bottom, bottom)]
    points: list[tuple[float, float]] = []
    for x, value in zip(steps, values, strict=True):
        if math.isfinite(value):
            points.append((x, band.y((value - low) / (high - low))))
        else:
            shapes += _curve(kind, points, dashed)
            points = []
    return [*shapes, *_curve(kind, points, dashed)]


def _curve(kind: str, points: Sequence[tuple[float, float]], dashed: bool) -> list[Shape]:
    """The part of a curve between two gaps."""
    if len(points) != 1:
        return [Polyline(kind, tuple(points), dashed)] if points else []
    ((x, y),) = points
    return [Line(kind, (x - DOT / 2, y), (x + DOT / 2, y), DOT)]


def _labels(low: float, high: float) -> tuple[str, str]:
    """The labels of two values, with as few digits as distinguish them; equal if ``DIGITS`` do not
    suffice."""
    labels = [(_short(low, digits), _short(high, digits)) for digits in DIGITS]
    return next((pair for pair in labels if pair[0] != pair[1]), labels[0])


def _short(value: float, digits: int) -> str:
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1e4:
        decimals = digits - 1 - math.floor(math.log10(size)) if size else 0
        return f"{value:.{max(0, decimals)}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _cosines(
    reports: Sequence[StepReport], indices: Sequence[int], steps: Sequence[float]
) -> list[Shape]:
    """The shapes of the cosines: title, legend, rules and, for each charted step, a bar up to the
    strongest agreement and one down to the strongest conflict since the previous charted step."""
    title, conflicts = COSINE.title, sum(report.conflict for report in reports)
    times = f" at {conflicts} of {count_of(len(reports), 'step')}" if reports else ""
    shapes: list[Shape] = [
        Text("label", (LEFT, title), "cosine of gradients"),
        *_legend_entry("agree", 240, "agree"),
        *_legend_entry("conflict", 305, f"conflict{times}"),
        _rule(COSINE.top),
        _rule(COSINE.bottom),
        _axis_label("label", COSINE.top, "+1"),
        _axis_label("label", COSINE.bottom, "-1"),
    ]
    half = COSINE.middle - COSINE.top
    stride = max(1, indices[1] - indices[0]) if len(indices) > 1 else 1
    space = (RIGHT - LEFT) * stride / len(reports) if reports else 0.0
    width = min(WIDEST_BAR, space if space < NARROW else 0.8 * space)
    begin = 0
    for i, x in zip(indices, steps, strict=True):
        part = [report for report in reports[begin : i + 1] if math.isfinite(report.cosine)]
        begin = i + 1
        for kind, up in (("agree", 1), ("conflict", -1)):
            sizes = [abs(r.cosine) for r in part if r.conflict == (kind == "conflict")]
            if sizes:
                tip = COSINE.middle - up * max(SHORTEST_BAR, half * max(sizes))
                shapes.append(Line(kind, (x, COSINE.middle), (x, tip), width))
    return [*shapes, _rule(COSINE.middle)]


def _legend_entry(kind: str, x: float, text: str) -> list[Shape]:
    y = COSINE.title - 4.5
    return [Line(kind, (x, y), (x + 9, y), 9), Text(kind, (x + 15, COSINE.title), text)]


def _rule(y: float) -> Line:
    return Line("grid", (LEFT, y), (RIGHT, y))


def _axis_label(kind: str, y: float, text: str) -> Text:
    return Text(kind, (LEFT - 6, y + 4.5), text, "end")
