"""Picture grids: before and after, previews, and the evaluation's comparison."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..evaluation.results import GROUPS, AlignmentReport
from ..foundation.pixels import as_bytes

CELL = 128  # px, smallest edge of a picture in a grid
MARGIN = 8
PNG_EDGE = 256  # px; pictures of this height or more are saved as JPEG
CAPTION_LINES = 3
COLUMNS = 8  # prompts of each group
INK, PAPER, FAINT = "#1b1b1f", "#ffffff", "#6b6b75"
TITLES = {
    "forget": "prompts with the concept (held-out prompts)",
    "retain train": "everything else, prompts used in training",
    "retain test": "everything else, held-out prompts",
}


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 [3, H, W] -> a picture of that size."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def picture_file(picture: Image.Image) -> tuple[bytes, str]:
    """A picture's file content and suffix: PNG for small pictures, JPEG of high quality for large
    ones."""
    buffer = io.BytesIO()
    if picture.height < PNG_EDGE:
        picture.save(buffer, "PNG")
        return buffer.getvalue(), "png"
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), "jpg"


def _enlarge(pixels: Tensor) -> Image.Image:
    """A picture at least ``CELL`` wide; small ones are enlarged by whole factors, so that no pixel
    is blurred."""
    picture = to_pil(pixels)
    factor = max(1, -(-CELL // picture.width))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def before_after(prompts: Sequence[str], before: Tensor, after: Tensor) -> Image.Image:
    """Two labelled rows with one column per prompt; pictures [N, 3, H, W] in 0..1."""
    return _stack([_rows(prompts, as_bytes(before), as_bytes(after))])


def comparison_grid(report: AlignmentReport) -> Image.Image:
    """Before and after rows for each concept and group of prompts, each under a title."""
    blocks = []
    for part, name in itertools.product(report.each, GROUPS):
        comparison = part.comparisons[name]
        prefix = f"{part.concept.name}: " if report.also else ""
        blocks.append(_title(prefix + TITLES[name]))
        first = slice(0, COLUMNS)
        blocks.append(
            _rows(comparison.prompts[first], comparison.before[first], comparison.after[first])
        )
    return _stack(blocks)


def labelled_row(labels: Sequence[str], images: Tensor) -> Image.Image:
    """One row of pictures [N, 3, H, W] in 0..1, each with a label below it."""
    pictures = [_enlarge(pixels) for pixels in as_bytes(images)]
    width, height = pictures[0].size
    font, line = ImageFont.load_default(15), 24
    size = (len(pictures) * (width + MARGIN) + MARGIN, height + line + 2 * MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
        x = MARGIN + i * (width + MARGIN)
        canvas.paste(picture, (x, MARGIN))
        draw.text((x + width // 2, MARGIN + height + line // 2), label, INK, font, anchor="mm")
    return canvas


def picture_strip(images: Tensor) -> Image.Image:
    """One row of pictures [N, 3, H, W] in 0..1, for previews."""
    pictures = [_enlarge(pixels) for pixels in as_bytes(images)]
    edge = pictures[0].width
    strip = Image.new("RGB", (len(pictures) * (edge + 2) - 2, edge), PAPER)
    for i, picture in enumerate(pictures):
        strip.paste(picture, (i * (edge + 2), 0))
    return strip


def _rows(prompts: Sequence[str], before: Tensor, after: Tensor) -> Image.Image:
    columns = [[_enlarge(pair[0]), _enlarge(pair[1])] for pair in zip(before, after, strict=True)]
    edge = columns[0][0].width
    font, label = ImageFont.load_default(12), ImageFont.load_default(15)
    left, line = 64, 15
    width = left + len(columns) * (edge + MARGIN)
    canvas = Image.new("RGB", (width, 2 * (edge + MARGIN) + CAPTION_LINES * line + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for row, word in enumerate(("before", "after")):
        middle = row * (edge + MARGIN) + edge // 2
        draw.text((MARGIN, middle), word, INK, label, anchor="lm")
    for i, (prompt, pictures) in enumerate(zip(prompts, columns, strict=True)):
        x = left + i * (edge + MARGIN)
        for row, picture in enumerate(pictures):
            canvas.paste(picture, (x, row * (edge + MARGIN)))
        lines = textwrap.wrap(prompt, max(8, edge // 6))[:CAPTION_LINES]
        for n, text in enumerate(lines):
            draw.text((x, 2 * (edge + MARGIN) + n * line), text, FAINT, font)
    return canvas


def _title(text: str) -> Image.Image:
    canvas = Image.new("RGB", (600, 26), PAPER)
    ImageDraw.Draw(canvas).text((MARGIN, 4), text, INK, ImageFont.load_default(16))
    return canvas


def _stack(blocks: Sequence[Image.Image]) -> Image.Image:
    width = max(block.width for block in blocks) + MARGIN
    canvas = Image.new("RGB", (width, sum(block.height for block in blocks) + 2 * MARGIN), PAPER)
    y = MARGIN
    for block in blocks:
        canvas.paste(block, (0, y))
        y += block.height
    return canvas
