"""The loss chart: its shapes compared with the data, and both drawings with the shapes."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from unlearn_core.reporting.html_style import STYLE
from unlearn_core.reporting.loss_chart import (
    COSINE,
    DOT,
    FORGET,
    HEIGHT,
    LEFT,
    POINTS,
    RETAIN,
    RIGHT,
    SHORTEST_BAR,
    TEXT,
    WIDTH,
    Band,
    Line,
    Polyline,
    Shape,
    Text,
    charted_steps,
    loss_chart,
)
from unlearn_core.reporting.loss_picture import ANCHORS, COLOURS, PAPER, SCALE, loss_picture
from unlearn_core.reporting.svg import loss_svg
from unlearn_core.unlearning.results import StepReport

ROOT = Path(__file__).resolve().parents[3]
LOSSES = {"forget": FORGET, "retain": RETAIN}
FORGET_LOSSES = (0.5, 0.2, 0.35, 0.05, 0.1)
RETAIN_LOSSES = (0.011, 0.012, 0.014, 0.012, 0.0115)
COSINES = (0.5, -0.25, 1.0, -1.0, 0.0)


def step(i: int, forget: float = 0.5, retain: float = 0.1, cosine: float = 0.1) -> StepReport:
    return StepReport(i, forget, retain, cosine, cosine < 0, 1.0, 1.0, -0.1, -0.1, 0.1)


def run(
    forget: Sequence[float] = FORGET_LOSSES,
    retain: Sequence[float] = RETAIN_LOSSES,
    cosines: Sequence[float] = COSINES,
) -> list[StepReport]:
    values = zip(forget, retain, cosines, strict=True)
    return [step(i + 1, *three) for i, three in enumerate(values)]


def within(band: Band, y: float) -> bool:
    return band.top <= y <= band.bottom


def curves(shapes: Sequence[Shape], kind: str) -> list[Polyline]:
    """The curves of a loss, without the sample in the legend."""
    polylines = [shape for shape in shapes if isinstance(shape, Polyline) and shape.kind == kind]
    return [shape for shape in polylines if within(LOSSES[kind], shape.points[0][1])]


def lines(shapes: Sequence[Shape], kind: str, band: Band) -> list[Line]:
    """The lines in a band, without those of the legend."""
    all_lines = [shape for shape in shapes if isinstance(shape, Line) and shape.kind == kind]
    return [shape for shape in all_lines if within(band, shape.start[1])]


def bars(shapes: Sequence[Shape], kind: str) -> list[Line]:
    return lines(shapes, kind, COSINE)


def texts(shapes: Sequence[Shape]) -> list[str]:
    return [shape.text for shape in shapes if isinstance(shape, Text)]


def long_run(count: int) -> list[StepReport]:
    return [step(i + 1, 1 / (i + 1), 0.1 + i % 7 / 100, 0.3) for i in range(count)]


@pytest.mark.parametrize(("kind", "values"), [("forget", FORGET_LOSSES), ("retain", RETAIN_LOSSES)])
def test_each_loss_fills_its_band(kind: str, values: Sequence[float]) -> None:
    (curve,) = curves(loss_chart(run()), kind)
    edges = np.linspace(LEFT, RIGHT, len(values) + 1)
    x = (edges[:-1] + edges[1:]) / 2
    y = np.interp(values, [min(values), max(values)], [LOSSES[kind].bottom, LOSSES[kind].top])
    np.testing.assert_allclose(curve.points, np.stack([x, y], 1))
    assert curve.dashed == (kind == "retain")


def test_bars_reach_from_the_middle_to_the_cosine() -> None:
    shapes = loss_chart(run())
    (curve,) = curves(shapes, "forget")
    columns = [x for x, _ in curve.points]
    for kind in ("agree", "conflict"):
        steps = [i for i, cosine in enumerate(COSINES) if (cosine < 0) == (kind == "conflict")]
        drawn = bars(shapes, kind)
        assert [bar.start for bar in drawn] == [(columns[i], COSINE.middle) for i in steps]
        assert [bar.end[0] for bar in drawn] == [columns[i] for i in steps]
        tips = np.interp([COSINES[i] for i in steps], [-1, 1], [COSINE.bottom, COSINE.top])
        if kind == "agree":  # its last cosine is 0, which gets the shortest bar
            tips[-1] = COSINE.middle - SHORTEST_BAR
        np.testing.assert_allclose([bar.end[1] for bar in drawn], tips)


def test_a_conflict_of_nearly_orthogonal_gradients_is_visible() -> None:
    (bar,) = bars(loss_chart([step(1, cosine=-1e-9)]), "conflict")
    assert bar.end[1] == COSINE.middle + SHORTEST_BAR


def test_axis_labels_are_the_extremes_and_the_first_and_last_step() -> None:
    shapes = loss_chart([step(i, i / 10, i * 1e-6, 0.1) for i in range(1, 8)])
    labels = {shape.at: shape for shape in shapes if isinstance(shape, Text)}
    extremes = [text for (x, _), text in labels.items() if x < LEFT]
    assert [text.text for text in extremes] == ["0.70", "0.10", "7.0e-6", "1.0e-6", "+1", "-1"]
    levels = [FORGET.top, FORGET.bottom, RETAIN.top, RETAIN.bottom, COSINE.top, COSINE.bottom]
    np.testing.assert_allclose([text.at[1] - 4.5 for text in extremes], levels)
    assert texts(shapes)[-2:] == ["step 1", "step 7"]
    assert {"forget loss", "retain loss", "cosine of gradients", "agree"} < set(texts(shapes))
    assert "conflict at 0 of 7 steps" in texts(shapes)


def test_labels_have_enough_digits_to_differ() -> None:
    shapes = loss_chart([step(1, 0.5, 1234), step(2, 0.501, 1236)])
    assert {"0.500", "0.501", "1234", "1236"} < set(texts(shapes))


@pytest.mark.parametrize("spread", [0, 1e-9])
def test_a_constant_loss_is_a_flat_line(spread: float) -> None:
    shapes = loss_chart([step(i + 1, 0.5 + spread * i) for i in range(9)])
    (curve,) = curves(shapes, "forget")
    np.testing.assert_allclose([y for _, y in curve.points], FORGET.middle, atol=1e-6)
    assert texts(shapes).count("0.50") == 1


def test_values_that_are_not_finite_leave_gaps() -> None:
    nan, inf = math.nan, math.inf
    reports = run((0.5, nan, 0.3, inf, 0.2), (nan, 1, 2, 3, -inf), (nan, 0.1, 0.1, -0.1, nan))
    shapes = loss_chart(reports)
    assert curves(shapes, "forget") == []
    dots = lines(shapes, "forget", FORGET)
    centres = [((a.start[0] + a.end[0]) / 2, a.start[1]) for a in dots]
    slot = (RIGHT - LEFT) / 5
    np.testing.assert_allclose([x for x, _ in centres], [LEFT + slot * i for i in (0.5, 2.5, 4.5)])
    np.testing.assert_allclose(
        [y for _, y in centres], [FORGET.top, FORGET.y(1 / 3), FORGET.bottom]
    )
    assert {dot.width for dot in dots} == {DOT}
    (curve,) = curves(shapes, "retain")
    np.testing.assert_allclose(
        [x for x, _ in curve.points], [LEFT + slot * i for i in (1.5, 2.5, 3.5)]
    )
    assert len(bars(shapes, "agree")) == 2
    assert len(bars(shapes, "conflict")) == 1
    assert not re.search("nan|inf", loss_svg(reports))


def test_a_single_step_is_in_the_middle() -> None:
    shapes = loss_chart([step(1, cosine=-1)])
    for kind, band in LOSSES.items():
        (dot,) = lines(shapes, kind, band)
        assert (dot.start[0] + dot.end[0]) / 2 == (LEFT + RIGHT) / 2
    assert texts(shapes)[-1] == "step 1"
    assert loss_svg([step(1)])


def test_without_losses_there_is_no_svg_and_a_picture_of_empty_bands() -> None:
    not_finite = [step(i + 1, math.nan, math.inf, math.nan) for i in range(3)]
    for reports in ([], not_finite):
        assert loss_svg(reports) == ""
        picture = loss_picture(reports)
        assert picture.size == loss_picture(run()).size
        for band in LOSSES.values():
            rows = (round((band.top + 2) * SCALE), round((band.bottom - 2) * SCALE))
            empty = picture.crop((LEFT * SCALE, rows[0], RIGHT * SCALE, rows[1]))
            assert empty.getcolors() == [(empty.width * empty.height, (255, 255, 255))]
    assert texts(loss_chart([]))[-1] == "no steps"


def test_a_long_run_is_thinned_by_the_smallest_sufficient_power_of_two() -> None:
    for count in (1, 2, 599, 600, 601, 1199, 1200, 2397, 2398, 5000, 99_999, 100_000):
        choices = (sorted({*range(0, count, 2**k), count - 1}) for k in itertools.count())
        expected = next(choice for choice in choices if len(choice) <= POINTS)
        assert charted_steps(count) == expected
    assert charted_steps(0) == []
    assert charted_steps(600) == list(range(600))
    assert charted_steps(601) == list(range(0, 601, 2))
    assert charted_steps(602) == [*range(0, 602, 2), 601]


def test_a_thinned_curve_goes_through_the_charted_steps() -> None:
    reports = long_run(1000)
    shapes = loss_chart(reports)
    (curve,) = curves(shapes, "forget")
    indices = [*range(0, 1000, 2), 999]
    values = [1 / (i + 1) for i in indices]
    y = np.interp(values, [1 / 1000, 1], [FORGET.bottom, FORGET.top])
    x = LEFT + (RIGHT - LEFT) * (np.array(indices) + 0.5) / 1000
    np.testing.assert_allclose(curve.points, np.stack([x, y], 1))
    assert "losses: one step in 2" in texts(shapes)


@pytest.mark.parametrize("index", [0, 1, 54_321, 99_998, 99_999])
def test_thinning_hides_no_conflict(index: int) -> None:
    reports = long_run(100_000)
    reports[index] = step(index + 1, cosine=-0.75)
    shapes = loss_chart(reports)
    (bar,) = bars(shapes, "conflict")
    indices = charted_steps(100_000)
    charted = next(i for i in indices if i >= index)
    x = LEFT + (RIGHT - LEFT) * (charted + 0.5) / 100_000
    np.testing.assert_allclose(bar.end, (x, np.interp(-0.75, [-1, 1], [COSINE.bottom, COSINE.top])))
    assert len(bars(shapes, "agree")) == len(indices) - (index == 0)  # no skipped step before it
    assert "conflict at 1 of 100000 steps" in texts(shapes)


def test_a_long_run_is_drawn_in_less_than_a_second() -> None:
    reports = long_run(100_000)
    started = time.process_time()
    loss_picture(reports)
    loss_svg(reports)
    assert time.process_time() - started < 1


def test_the_svg_has_the_shapes() -> None:
    reports = [*run(), step(6, math.nan, math.nan, math.nan), step(7)]
    shapes = loss_chart(reports)
    root = ElementTree.fromstring(loss_svg(reports))
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    assert len(root) == len(shapes)
    for element, shape in zip(root, shapes, strict=True):
        assert element.get("class") == shape.kind
        if isinstance(shape, Text):
            assert (element.tag, element.text) == ("text", shape.text)
            assert element.get("text-anchor") == shape.anchor
            names, expected = ("x", "y"), shape.at
        elif isinstance(shape, Line):
            assert element.tag == "line"
            names, expected = ("x1", "y1", "x2", "y2"), (*shape.start, *shape.end)
        else:
            assert element.tag == "polyline"
            assert ("stroke-dasharray" in element.attrib) == shape.dashed
            points = [pair.split(",") for pair in (element.get("points") or "").split()]
            np.testing.assert_allclose(np.array(points, float), shape.points, atol=0.006)
            continue
        coordinates = [float(element.attrib[name]) for name in names]
        np.testing.assert_allclose(coordinates, expected, atol=0.006)


def has_colour(picture: Image.Image, x: float, y: float, kind: str) -> bool:
    """Whether the picture has the kind's colour at a point of the chart."""
    pixel = picture.getpixel((round(x * SCALE), round(y * SCALE)))
    assert isinstance(pixel, tuple)
    colour = ImageColor.getrgb(COLOURS[kind])
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 60


def test_the_picture_has_the_shapes() -> None:
    reports = [*run(), step(6, math.nan, math.nan, math.nan), step(7, 0.3, 0.012, 0.9)]
    shapes, picture = loss_chart(reports), loss_picture(reports)
    assert picture.size == (WIDTH * SCALE, HEIGHT * SCALE)
    for shape in shapes:
        if isinstance(shape, Line) and shape.kind != "grid":
            (x1, y1), (x2, y2) = shape.start, shape.end
            assert has_colour(picture, (x1 + x2) / 2, (y1 + y2) / 2, shape.kind)
    (solid,) = curves(shapes, "forget")
    (dashed,) = curves(shapes, "retain")
    for curve in (solid, dashed):
        pairs = list(itertools.pairwise(curve.points))
        along = [
            has_colour(picture, x1 + (x2 - x1) * t, y1 + (y2 - y1) * t, curve.kind)
            for (x1, y1), (x2, y2) in pairs
            for t in np.linspace(0.02, 0.98, 80)
        ]
        share = sum(along) / len(along)
        assert share == 1 if curve is solid else 0.55 < share < 0.85
        for (x1, y1), (x2, y2) in pairs:  # and none well beside the line
            assert not has_colour(picture, (x1 + x2) / 2, (y1 + y2) / 2 + 12, curve.kind)


def test_labels_of_extreme_numbers_fit() -> None:
    reports = [
        step(99_001 + i, -1.2345e-5 * (1 + i * 2e-6), -1e8 - 1e5 * i, -0.1) for i in range(1000)
    ]
    font = ImageFont.load_default(TEXT)
    boxes = []
    for shape in loss_chart(reports):
        if isinstance(shape, Text):
            left, top, right, bottom = font.getbbox(shape.text, anchor=ANCHORS[shape.anchor])
            x, y = shape.at
            boxes.append((x + left, y + top, x + right, y + bottom))
        elif isinstance(shape, Line) and shape.kind != "grid" and shape.start[1] == shape.end[1]:
            (x1, y), (x2, _) = shape.start, shape.end
            boxes.append((x1, y - shape.width / 2, x2, y + shape.width / 2))
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= WIDTH
        assert 0 <= top < bottom <= HEIGHT
        for band in (FORGET, RETAIN, COSINE):  # no label covers a curve
            assert right < LEFT or bottom < band.top or top > band.bottom
    for one, other in itertools.combinations(boxes, 2):
        side_by_side = one[2] < other[0] or other[2] < one[0]
        assert side_by_side or one[3] < other[1] or other[3] < one[1]


def luminance(colour: str) -> float:
    """Relative luminance as defined by WCAG 2."""
    shares = [value / 255 for value in ImageColor.getrgb(colour)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def kinds() -> set[str]:
    return {shape.kind for shape in loss_chart(run())}


def test_the_picture_s_colours_have_enough_contrast() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert set(COLOURS) == kinds()
    for colour in COLOURS.values():
        assert contrast(colour, PAPER) >= 4.5


def test_the_report_s_colours_have_enough_contrast_in_both_themes() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    rules = re.findall(r"^(\.chart .*?) \{ color: var\((--[\w-]+)\); \}", STYLE, re.MULTILINE)
    names = {
        kind.removeprefix(".chart ."): name
        for selectors, name in rules
        for kind in selectors.split(", ")
    }
    assert set(names) == kinds()
    assert not re.search(r"\.chart[^{]*\{[^}]*opacity", STYLE)
    for theme in (light, dark):
        colours = dict(re.findall(r"(--[\w-]+): (#\w+)", theme))
        for name in names.values():
            assert contrast(colours[name], colours["--paper"]) >= 4.5, name


def test_neither_drawing_loads_matplotlib() -> None:
    script = (
        "import sys\n"
        "from unlearn_core.reporting import html_report\n"
        "from unlearn_core.reporting.loss_picture import loss_picture\n"
        "from unlearn_core.reporting.svg import loss_svg\n"
        "from unlearn_core.unlearning.results import StepReport\n"
        "steps = [StepReport(i, 1 / i, 0.1, 0.2, False, 1, 1, 0, 0, 0) for i in range(1, 9)]\n"
        "assert loss_svg(steps) and loss_picture(steps)\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
