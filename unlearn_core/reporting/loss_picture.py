"""The loss chart as an image, for the node's output and for loss.png."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from ..unlearning.results import StepReport
from .loss_chart import DASH, HEIGHT, STROKE, TEXT, WIDTH, Line, Polyline, Text, loss_chart

SCALE = 2  # pixels per unit of the chart
FINE = 3  # strokes are drawn larger by this factor and then reduced, for smooth edges
PAPER = "#ffffff"
COLOURS = {  # those of the live panel in a light theme
    "forget": "#9c1c33",
    "retain": "#0b5277",
    "agree": "#2a6a3c",
    "conflict": "#9c1c33",
    "grid": "#71717b",
    "label": "#46464f",
}
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
Point = tuple[float, float]


def loss_picture(reports: Sequence[StepReport]) -> Image.Image:
    """The chart of a run, RGB on white; without steps, the bands are empty."""
    shapes = loss_chart(reports)
    large = SCALE * FINE
    canvas = Image.new("RGB", (WIDTH * large, HEIGHT * large), PAPER)
    draw = ImageDraw.Draw(canvas)
    for shape in shapes:
        if isinstance(shape, Line):
            ends = [(x * large, y * large) for x, y in (shape.start, shape.end)]
            draw.line(ends, COLOURS[shape.kind], math.ceil(shape.width * large))
        elif isinstance(shape, Polyline):
            pieces = _dashes(shape.points) if shape.dashed else [shape.points]
            for piece in pieces:
                _stroke(draw, [(x * large, y * large) for x, y in piece], COLOURS[shape.kind])
    picture = canvas.reduce(FINE)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT * SCALE)
    for shape in shapes:
        if isinstance(shape, Text):
            at = (shape.at[0] * SCALE, shape.at[1] * SCALE)
            draw.text(at, shape.text, COLOURS[shape.kind], font, anchor=ANCHORS[shape.anchor])
    return picture


def _stroke(draw: ImageDraw.ImageDraw, points: Sequence[Point], colour: str) -> None:
    """Draw a line with round ends, like SVG's ``stroke-linecap: round``."""
    width = round(STROKE * SCALE * FINE)
    draw.line(points, colour, width, joint="curve")
    for end in (points[0], points[-1]):
        draw.circle(end, width / 2, colour)


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The dashes of a line, as SVG's ``stroke-dasharray`` with ``DASH`` draws them."""
    piece, remaining, is_dash = [points[0]], DASH, True
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        length = math.hypot(to_x - x, to_y - y)
        position = 0.0
        while length - position > remaining:
            position += remaining
            share = position / length
            corner = (x + share * (to_x - x), y + share * (to_y - y))
            if is_dash:
                yield [*piece, corner]
            piece, remaining, is_dash = [corner], DASH, not is_dash
        remaining -= length - position
        piece.append((to_x, to_y))
    if is_dash:
        yield piece
