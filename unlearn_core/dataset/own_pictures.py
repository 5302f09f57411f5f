"""The user's own pictures, with captions, as forget set or retain set."""

from __future__ import annotations

import itertools
import math
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from ..foundation.pixels import as_floats
from ..foundation.plurals import count_of
from ..foundation.progress import READING_PICTURES, Progress
from ..foundation.text_files import read_text
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs

RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)  # width to height
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp")
CAPTION = ".txt"  # beside a picture
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")
MOST_NAMES = 5  # in a message
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # Pillow may open others with external programs
CORRUPT = (
    ArithmeticError, LookupError, TypeError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""Pillow's errors for damaged files, beside OSError, ValueError and SyntaxError."""
LARGEST_EDGE = 1536  # px, of a picture's shorter edge; SDXL's own pictures have 1024
LARGEST = 10_000  # pictures per folder
COLON = re.compile(r":(?=\s|$)|：")  # after a picture's name
MOST_PIXELS = 120_000_000  # of one picture; unpacked, it needs up to 1 GB
LARGEST_FILE = 500_000_000  # bytes of one picture
LARGEST_CAPTION = 100_000  # bytes of a text file


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """Pictures and their captions.

    Attributes:
        images: each uint8 [3, H, W], or its file, since a thousand photographs do not fit into
            memory.
        captions: one per picture.
        alone: whether they replace the model's pictures instead of being added to them.
    """

    images: tuple[Tensor | Path, ...]
    captions: tuple[str, ...]
    alone: bool = False

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("pictures: none given; add images or choose a folder of them")
        if len(self.images) != len(self.captions):
            raise ValueError(
                f"captions: {len(self.captions)} for {count_of(len(self.images), 'picture')}; "
                "write one line for all pictures, or one line for each picture"
            )

    def get_ram_usage(self) -> int:
        """Bytes of the pictures in memory. ComfyUI's cache of outputs calls this method by name."""
        return sum(image.nbytes for image in self.images if isinstance(image, Tensor))

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the files without their endings; None if not all are files."""
        files = [image.stem for image in self.images if isinstance(image, Path)]
        return tuple(files) if len(files) == len(self.images) else None

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
    """One caption per picture, from the user's text. In order of precedence: a line
    ``name: caption``; the picture's line, if there are as many lines as pictures; the text file
    beside the picture; a single line for all pictures.

    Args:
        names: file names of the pictures.
        text: the user's lines.
        beside: for each picture, the path of the text file that may contain its caption, as in the
            data sets of LoRA trainers.

    Raises:
        ValueError: a line for an unknown picture, a wrong number of lines, an unreadable file, or a
            picture without a caption.
    """
    named, lines, known = {}, [], set(names)
    for line in filter(None, map(str.strip, text.splitlines())):
        name, caption = _named_caption(line, known)
        if not name:
            lines.append(line)
        elif name not in known:
            raise ValueError(f"captions: there is no picture {name!r}; remove that line")
        elif not caption:
            raise ValueError(f"captions: {line!r} has no caption; write it after the colon")
        else:
            named[name] = caption
    if len(lines) not in (0, 1, len(names)):
        raise ValueError(
            f"captions: {len(lines)} lines for {count_of(len(names), 'picture')}; "
            "write one line for all pictures, or one line for each picture"
        )
    files = beside or [None] * len(names)
    ordered = lines if len(lines) == len(names) else [None] * len(names)
    captions = []
    for name, line, file in zip(names, ordered, files, strict=True):
        caption = named.get(name) or line
        if caption is None and file is not None and file.is_file():
            caption = _read_caption(file)
        caption = caption or (lines[0] if lines else None)
        if caption is None:
            cure = f"add {file.name!r} beside it, or write" if file else "write"
            raise ValueError(
                f"captions: {name!r} has no caption; {cure} one here, for this picture or for all"
            )
        captions.append(caption)
    return tuple(captions)


def _named_caption(line: str, known: Collection[str]) -> tuple[str, str]:
    """The picture's name and the caption in a line ``name: caption``; an empty name if the line
    does not begin with the name of a picture. A name may itself contain colons."""
    parts = [
        (line[: colon.start()].strip(), line[colon.end() :].strip())
        for colon in COLON.finditer(line)
    ]
    of_pictures = (part for part in parts if Path(part[0]).suffix.lower() in PICTURES)
    return next((part for part in parts if part[0] in known), next(of_pictures, ("", line)))


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name, without hidden ones: macOS stores ``._a.png``,
    which is no picture, beside ``a.png``.

    Raises:
        ValueError: the folder has no pictures, or too many.
    """
    files = sorted(file for file in folder.iterdir() if _is_picture(file))
    if len(files) > LARGEST:
        raise ValueError(
            f"folder: {folder.name!r} has {len(files)} pictures, the limit is {LARGEST}; "
            "remove some"
        )
    if not files:
        raise ValueError(
            f"folder: no pictures in {folder.name!r}; add some ({', '.join(PICTURES)})"
        )
    return files


def left_out(folder: Path) -> str:
    """A message about the entries of a folder that are neither pictures nor their captions; empty
    if there are none. Files that the system writes by itself are not mentioned."""
    entries = sorted(folder.iterdir())
    pictures = {file.stem for file in entries if _is_picture(file)}
    others = [
        entry.name
        for entry in entries
        if not _is_picture(entry)
        and not (entry.suffix == CAPTION and entry.stem in pictures)
        and not entry.name.startswith(".")
        and entry.name.lower() not in SYSTEM_FILES
    ]
    if not others:
        return ""
    more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
    return f"left out of {folder.name}: {', '.join(others[:MOST_NAMES])}{more}"


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()


def read_folder(
    folder: Path, text: str, alone: bool, progress: Progress | None = None
) -> OwnPictures:
    """The pictures of a folder, sorted by name. Each file is opened once to check it.

    Args:
        text: captions, see ``with_captions``.
        progress: announces what is ``left_out``, and ticks once for each picture.

    Raises:
        ValueError: no pictures or too many, an unreadable one, or one without a caption.
    """
    files, progress = picture_files(folder), progress or Progress()
    beside = [file.with_suffix(CAPTION) for file in files]
    captions = with_captions([file.name for file in files], text, beside)
    if message := left_out(folder):
        progress.announce(message)
    with progress.phase(READING_PICTURES, len(files)) as phase:
        for file in phase.ticking(files):
            _read_picture(file)
    return OwnPictures(tuple(files), captions, alone)


def _read_picture(file: Path) -> Tensor:
    try:
        _check_file(file, LARGEST_FILE)
        with Image.open(file, formats=FORMATS) as opened:
            pixels = opened.width * opened.height  # known from the header, before it is unpacked
            if pixels > MOST_PIXELS:
                raise ValueError(f"{pixels:,} pixels; the limit is {MOST_PIXELS:,}; reduce it")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                raise ValueError(f"{upright.mode} is not 8 bits per colour; convert the picture")
            upright = _limit(upright).convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")  # the background of most web pages
            upright = Image.alpha_composite(white, upright).convert("RGB")
    except (OSError, ValueError, SyntaxError, *CORRUPT) as error:
        raise ValueError(f"folder: {file.name!r} cannot be read ({error})") from None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def _check_file(file: Path, largest: int) -> None:
    """Raises:
    OSError: not a regular file, whose reading might never end, or larger than ``largest`` bytes.
    """
    if not file.is_file():
        raise OSError("not a regular file; remove it")
    size = file.stat().st_size
    if size > largest:
        raise OSError(f"{size:,} bytes; the limit is {largest:,}")


def _limit(picture: Image.Image) -> Image.Image:
    """Crop a picture to the widest or tallest bucket and reduce it to the size that a model needs:
    as floats, a photograph from a camera takes a gigabyte."""
    width, height = picture.size
    wide, tall = min(width, round(height * max(RATIOS))), min(height, round(width * max(RATIOS)))
    left, top = (width - wide) // 2, (height - tall) // 2
    box = (left, top, left + wide, top + tall)
    shrink = min(1.0, LARGEST_EDGE / min(wide, tall))
    size = (max(1, round(wide * shrink)), max(1, round(tall * shrink)))
    if size == picture.size:
        return picture
    # Palettes and bitmaps have no intermediate colours for resampling.
    smooth = picture.convert("RGBA") if picture.mode in ("P", "1", "PA") else picture
    return smooth.resize(size, Image.Resampling.LANCZOS, box)


def _read_caption(file: Path) -> str:
    try:
        _check_file(file, LARGEST_CAPTION)
        if file.is_symlink() and not file.resolve().is_relative_to(file.parent.resolve()):
            raise OSError("it is a link to a place outside the folder, which is not followed")
        text = " ".join(read_text(file).split())  # a caption is one line
    except OSError as error:
        raise ValueError(f"captions: {file.name!r} cannot be read ({error})") from None
    except UnicodeError as error:
        raise ValueError(f"captions: {error}") from None
    if not text:
        raise ValueError(f"captions: {file.name!r} is empty; write in it what the picture shows")
    return text


def captioned(pictures: OwnPictures, pairs: PromptPairs) -> list[tuple[PromptPair, int]]:
    """For each picture its prompt pair and the index of its concept. The forget prompt is the
    caption; in the retain prompt, every concept of the run is replaced.

    Raises:
        ValueError: a caption mentions none of the concepts.
    """
    result = []
    for i, caption in enumerate(pictures.captions):
        mentions = [k for k, p in enumerate(pairs.each) if p.concept.is_mentioned_in(caption)]
        if not mentions:
            names = " or ".join(repr(p.concept.name) for p in pairs.each)
            raise ValueError(
                f"captions: {caption!r} does not mention {names}; add the concept to this caption"
            )
        parallel, replacement = caption, ""
        for k in reversed(mentions):  # so that the pair stores the first concept's replacement
            replacements = _replacements(pairs.each[k])
            replacement = replacements[i % len(replacements)]
            parallel = pairs.each[k].concept.replaced_in(parallel, replacement)
        pair = PromptPair(caption, parallel, replacement, {})
        result.append((pair, mentions[0]))
    return result


def _replacements(pairs: PromptPairs) -> Sequence[str]:
    """The replacements of a concept in its train pairs, including made-up names."""
    words = dict.fromkeys(pair.replacement for pair in pairs.train if pair.replacement)
    return list(words) or pairs.concept.replacements or ("",)


def check_retained(pictures: OwnPictures, pairs: PromptPairs) -> None:
    """Check that the retain pictures do not show a concept to forget.

    Raises:
        ValueError: a caption mentions a concept.
    """
    for caption, part in itertools.product(pictures.captions, pairs.each):
        if part.concept.is_mentioned_in(caption):
            raise ValueError(
                f"captions: {caption!r} of a retain picture mentions {part.concept.name!r}; "
                "remove the picture or change its caption"
            )


def encode_pictures(
    model: ModelHandle, pictures: OwnPictures, progress: Progress | None = None
) -> Iterator[tuple[Tensor, list[int]]]:
    """Encode pictures to latents on the CPU. Yields, for each bucket size, the latents [N, C, h, w]
    and the indices of the pictures. All sizes have about as many pixels as the model's own.
    Pictures are cropped to the nearest aspect ratio and never distorted.

    Args:
        progress: ticks once for each picture.

    Raises:
        ValueError: a file cannot be read.
    """
    sizes, progress = bucket_sizes(model), progress or Progress()
    buckets: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
    for i in progress.ticking(range(len(pictures.images))):
        image = pictures.image(i)
        ratio = math.log(image.shape[2] / image.shape[1])
        size = min(sizes, key=lambda s: abs(math.log(s[1] / s[0]) - ratio))
        latent = model.encode_images(crop_to_fill(as_floats(image), size)[None])
        buckets[size][i] = latent.float().cpu()
    for _, latents in sorted(buckets.items()):
        yield torch.cat(list(latents.values())), list(latents)


def bucket_sizes(model: ModelHandle) -> list[tuple[int, int]]:
    """The bucket sizes of a model, (height, width) in pixels."""
    edge, step = model.info.image_size, model.size_step
    if step is None:
        return [(edge, edge)]
    sizes = {
        (
            max(step, round(edge / math.sqrt(ratio) / step) * step),
            max(step, round(edge * math.sqrt(ratio) / step) * step),
        )
        for ratio in RATIOS
    }
    return sorted(sizes)


def crop_to_fill(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture [3, H, W], scaled to fill ``size`` and cropped to its middle."""
    height, width = size
    scale = max(height / image.shape[1], width / image.shape[2])
    scaled = (max(height, round(image.shape[1] * scale)), max(width, round(image.shape[2] * scale)))
    resized = interpolate(image[None], scaled, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return resized[:, top : top + height, left : left + width]
