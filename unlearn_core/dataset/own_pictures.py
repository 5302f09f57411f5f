"""A person's own pictures, with captions, as forget set or retain set."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from ..foundation.pixels import as_floats
from ..foundation.progress import READING_PICTURES, Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs

RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)  # width to height
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # others may be handed to programs outside
NEEDED = 1536  # px of a picture's shorter edge; SDXL's own pictures have 1024
LARGEST = 10_000  # pictures of one folder


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """Pictures and what each shows.

    Attributes:
        images: each uint8 [3, H, W], or the file of one, for no memory holds a thousand
            photographs.
        captions: one a picture.
        alone: whether they take the place of what the model draws, or join it.
    """

    images: tuple[Tensor | Path, ...]
    captions: tuple[str, ...]
    alone: bool = False

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("pictures: none given, give images or a folder of them")
        if len(self.images) != len(self.captions):
            raise ValueError(
                f"captions: {len(self.captions)} for {len(self.images)} pictures; "
                "write one for all, or one a line for each"
            )

    def get_ram_usage(self) -> int:
        """Bytes of the pictures that are no files; the name is ComfyUI's, whose cache of outputs
        asks."""
        return sum(image.nbytes for image in self.images if isinstance(image, Tensor))

    def image(self, i: int) -> Tensor:
        """Picture ``i``, uint8 [3, H, W].

        Raises:
            ValueError: its file cannot be read.
        """
        source = self.images[i]
        return _read_picture(source) if isinstance(source, Path) else source


def with_captions(
    names: Sequence[str], text: str, beside: Sequence[Path] | None = None
) -> tuple[str, ...]:
    """A caption of each picture, from what a person wrote. What counts most comes first: a line
    ``name: caption`` for that picture; the line for it, if there is one for each; the file beside
    it; the one line for all.

    Args:
        names: of the pictures.
        text: lines.
        beside: of each picture, the text file that may hold its caption (as LoRA trainers have it).

    Raises:
        ValueError: a line for a picture that is not there, another number of lines, a file that
            cannot be read, or a picture without a caption.
    """
    named, lines = {}, []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, caption = map(str.strip, line.partition(": "))
        if line.endswith(":") and line[:-1].strip() in names:
            raise ValueError(f"captions: {line!r} says nothing of the picture; write it behind")
        if colon and name in names:
            named[name] = caption
        elif colon and Path(name).suffix.lower() in PICTURES:
            raise ValueError(f"captions: there is no picture {name!r}; take that line out")
        else:
            lines.append(line)
    if len(lines) not in (0, 1, len(names)):
        raise ValueError(
            f"captions: {len(lines)} lines for {len(names)} pictures; "
            "write one for all, or one a line for each"
        )
    files = beside or [None] * len(names)
    ordered = lines if len(lines) == len(names) else [None] * len(names)
    found = []
    for name, line, file in zip(names, ordered, files, strict=True):
        caption = named.get(name) or line
        if caption is None and file is not None and file.is_file():
            caption = _read_caption(file)
        caption = caption or (lines[0] if lines else None)
        if caption is None:
            cure = f"add {file.name!r} beside it, or write" if file else "write"
            raise ValueError(f"captions: {name!r} has none: {cure} one here, for it or for all")
        found.append(caption)
    return tuple(found)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names.

    Raises:
        ValueError: none, or too many.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    if len(files) > LARGEST:
        raise ValueError(
            f"folder: {len(files)} pictures in {folder.name!r}, at most {LARGEST}: choose fewer"
        )
    if not files:
        raise ValueError(f"folder: no picture in {folder.name!r} ({', '.join(PICTURES)})")
    return files


def read_folder(
    folder: Path, text: str, alone: bool, progress: Progress | None = None
) -> OwnPictures:
    """The pictures of a folder in the order of their names, each looked at.

    Args:
        text: captions, see ``with_captions``.
        progress: ticks once for each picture.

    Raises:
        ValueError: no picture or too many, one that cannot be read, or one without a caption.
    """
    files = picture_files(folder)
    beside = [file.with_suffix(".txt") for file in files]
    captions = with_captions([file.name for file in files], text, beside)
    with (progress or Progress()).phase(READING_PICTURES, len(files)) as phase:
        for file in phase.ticking(files):
            _read_picture(file)
    return OwnPictures(tuple(files), captions, alone)


def _read_picture(file: Path) -> Tensor:
    try:
        with Image.open(file, formats=FORMATS) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                raise ValueError(f"{upright.mode} is no picture of 8 bits a colour; save it as one")
            upright = _bounded(upright).convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")  # as most pages show it
            upright = Image.alpha_composite(white, upright).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"folder: {file.name!r} cannot be read ({error})") from None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def _bounded(picture: Image.Image) -> Image.Image:
    """No wider or taller than the widest and tallest bucket, and no larger than a model needs: a
    photograph from a camera, as numbers, takes a gigabyte."""
    width, height = picture.size
    wide, tall = min(width, round(height * max(RATIOS))), min(height, round(width * max(RATIOS)))
    left, top = (width - wide) // 2, (height - tall) // 2
    box = (left, top, left + wide, top + tall)
    shrink = min(1.0, NEEDED / min(wide, tall))
    size = (max(1, round(wide * shrink)), max(1, round(tall * shrink)))
    if size == picture.size:
        return picture
    # Palettes and bitmaps have no colours between theirs.
    smooth = picture.convert("RGBA") if picture.mode in ("P", "1", "PA") else picture
    return smooth.resize(size, Image.Resampling.LANCZOS, box)


def _read_caption(file: Path) -> str:
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())  # a caption is one line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"captions: {file.name!r} is no UTF-8 text ({error}); save it as UTF-8"
        ) from None
    if not text:
        raise ValueError(f"captions: {file.name!r} is empty; say in it what the picture shows")
    return text


def captioned(pictures: OwnPictures, pairs: PromptPairs) -> list[tuple[PromptPair, int]]:
    """A prompt pair for each picture of a concept, and which of the run's concepts that is: its
    caption, and that with a replacement for every concept that it mentions.

    Raises:
        ValueError: a caption that mentions none of the concepts.
    """
    found = []
    for i, caption in enumerate(pictures.captions):
        shown = [k for k, p in enumerate(pairs.each) if p.concept.is_mentioned_in(caption)]
        if not shown:
            names = " or ".join(repr(p.concept.name) for p in pairs.each)
            raise ValueError(
                f"captions: {caption!r} does not mention {names}, which the picture is to show"
            )
        parallel, replacement = caption, ""
        for k in reversed(shown):  # the last one is of the first
            replacements = _replacements(pairs.each[k])
            replacement = replacements[i % len(replacements)]
            parallel = pairs.each[k].concept.replaced_in(parallel, replacement)
        pair = PromptPair(caption, parallel, replacement, {})
        found.append((pair, shown[0]))
    return found


def _replacements(pairs: PromptPairs) -> Sequence[str]:
    """What stands in the concept's place, made-up names among it."""
    used = dict.fromkeys(pair.replacement for pair in pairs.train if pair.replacement)
    return list(used) or pairs.concept.replacements or ("",)


def check_retained(pictures: OwnPictures, pairs: PromptPairs) -> None:
    """Refuse to keep what is to be forgotten.

    Raises:
        ValueError: a caption that mentions a concept.
    """
    for caption, part in itertools.product(pictures.captions, pairs.each):
        if part.concept.is_mentioned_in(caption):
            raise ValueError(
                f"captions: {caption!r} is to be kept but mentions {part.concept.name!r}"
            )


def encoded(
    model: ModelHandle, pictures: OwnPictures, progress: Progress | None = None
) -> Iterator[tuple[Tensor, list[int]]]:
    """The pictures as latents [N, C, h, w] on the CPU, one part for each size that they were
    brought to, and which of them are in it. Sizes have about as many pixels as the model's own:
    shapes stay, nothing is drawn out.

    Args:
        progress: ticks once for each picture.

    Raises:
        ValueError: a file that cannot be read.
    """
    sizes, progress = bucket_sizes(model), progress or Progress()
    buckets: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
    for i in progress.ticking(range(len(pictures.images))):
        image = pictures.image(i)
        ratio = math.log(image.shape[2] / image.shape[1])
        size = min(sizes, key=lambda s: abs(math.log(s[1] / s[0]) - ratio))
        latent = model.encode_images(filled(as_floats(image), size)[None])
        buckets[size][i] = latent.float().cpu()
    for _, latents in sorted(buckets.items()):
        yield torch.cat(list(latents.values())), list(latents)


def bucket_sizes(model: ModelHandle) -> list[tuple[int, int]]:
    """(height, width) in pixels that pictures are brought to."""
    edge, step = model.info.image_size, model.size_step
    if step is None:
        return [(edge, edge)]
    found = {
        (
            max(step, round(edge / math.sqrt(ratio) / step) * step),
            max(step, round(edge * math.sqrt(ratio) / step) * step),
        )
        for ratio in RATIOS
    }
    return sorted(found)


def filled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of the picture [3, H, W], scaled to fill ``size``."""
    height, width = size
    scale = max(height / image.shape[1], width / image.shape[2])
    scaled = (max(height, round(image.shape[1] * scale)), max(width, round(image.shape[2] * scale)))
    resized = interpolate(image[None], scaled, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return resized[:, top : top + height, left : left + width]
