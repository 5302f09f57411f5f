"""Training pictures of EmojiCanvas: emoji artwork placed at random on a coloured background."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from demo.world import BACKGROUND_COLOURS, OBJECTS, Subject

SHEET_FOLDER = Path(__file__).parent / "artwork"
SHEET_COLUMNS = 8
TILE = 128  # px, edge of one emoji on the sheets
SIZE = 64  # px, edge of a picture of EmojiCanvas
PIXEL_GRID = 16  # the pixel style is noto's artwork on a grid of this many squares


@functools.cache
def tile(style: str, object_name: str) -> Image.Image:
    """The artwork of one object in one style, RGBA ``TILE`` x ``TILE``."""
    sheet = Image.open(SHEET_FOLDER / f"{'noto' if style == 'pixel' else style}.png")
    index = OBJECTS.index(object_name)
    left, top = index % SHEET_COLUMNS * TILE, index // SHEET_COLUMNS * TILE
    return sheet.convert("RGBA").crop((left, top, left + TILE, top + TILE))


def draw(subject: Subject, rng: random.Random, size: int = SIZE) -> np.ndarray:
    """One picture, uint8 [size, size, 3]: the emoji slightly rotated, scaled and shifted."""
    scale = rng.uniform(0.78, 0.92)
    angle = math.radians(rng.uniform(-8, 8))
    shift_x, shift_y = rng.uniform(-4, 4), rng.uniform(-4, 4)
    cos, sin, centre = math.cos(angle) / scale, math.sin(angle) / scale, TILE / 2
    # PIL expects the map from the result's coordinates to the source's.
    to_source = (
        *(cos, sin, centre - cos * (centre + shift_x) - sin * (centre + shift_y)),
        *(-sin, cos, centre + sin * (centre + shift_x) - cos * (centre + shift_y)),
    )
    art = tile(subject.style, subject.object)
    art = art.transform((TILE, TILE), Image.Transform.AFFINE, to_source, Image.Resampling.BICUBIC)
    if subject.style == "pixel":
        art = art.resize((PIXEL_GRID, PIXEL_GRID), Image.Resampling.BOX)
        art.putalpha(art.getchannel("A").point([255 * (a > 110) for a in range(256)]))
        art = art.resize((size, size), Image.Resampling.NEAREST)
    else:
        art = art.resize((size, size), Image.Resampling.LANCZOS)
    jitter = rng.randint(-5, 5)
    colour = tuple(min(255, c + jitter) for c in BACKGROUND_COLOURS[subject.background])
    picture = Image.new("RGBA", (size, size), (*colour, 255))
    picture.alpha_composite(art)
    return np.asarray(picture.convert("RGB"))
