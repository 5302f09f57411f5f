"""Settings of picture generation and of the user's own pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..foundation.checks import LARGEST_SEED
from ..foundation.fields import Range, check_fields, number, other, whole
from ..foundation.progress import Progress
from .own_pictures import OwnPictures, read_folder


@dataclass(frozen=True)
class PictureSettings:
    """The user's own pictures: a folder, and captions in the format of ``read_folder``."""

    folder: Path = field(metadata=other("the path of a folder", help="Folder of the pictures."))
    captions: str = field(
        default="",
        metadata=other(
            "a text with one caption per line",
            help="Captions, one per line: 'name: caption' for a single picture, or one line for "
            "each picture, or one line for all. A text file beside a picture takes precedence over "
            "the one line for all.",
        ),
    )
    alone: bool = field(
        default=False,
        metadata=other(
            "true or false",
            help="Whether the model learns only from these pictures. Otherwise they are added to "
            "the pictures that the model draws.",
        ),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, Path)):
            raise ValueError(f"folder must be the path of a folder, got {self.folder!r}")
        if not isinstance(self.captions, str):
            raise ValueError(
                f"captions must be a text with one caption per line, got {self.captions!r:.80}"
            )
        if not isinstance(self.alone, bool):
            raise ValueError(f"alone must be true or false, got {self.alone!r}")

    def read(self, progress: Progress | None = None) -> OwnPictures:
        """Read the pictures.

        Args:
            progress: ticks once for each picture.

        Raises:
            ValueError: the folder does not exist, has no pictures, or one without a caption.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise ValueError(f"folder: {str(folder)!r} does not exist")
        return read_folder(folder, self.captions, self.alone, progress)


LARGEST_SAMPLING = 1000  # steps; models were trained with this number of timesteps


@dataclass(frozen=True)
class GenerationSettings:
    """Sampler settings for the pictures of the model."""

    steps: int = whole(
        12,
        least=1,
        most=LARGEST_SAMPLING,
        help="Sampling steps for each picture. More steps give finer pictures, but take longer.",
        advanced=True,
    )
    guidance_scale: float = number(
        4.0,
        above=0,
        offered=Range(0.1, 100.0, 0.1),
        help="How closely the pictures follow their prompts (CFG). Use the CFG of your own "
        "workflows. 1 turns guidance off, which is twice as fast. Class-conditional models without "
        "an empty class never use guidance.",
        advanced=True,
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="Seed of the first picture; each further picture uses the next number. Another seed "
        "gives other pictures for the same prompts.",
        advanced=True,
    )
    batch_size: int = whole(
        16,
        least=1,
        offered=1024,
        help="Number of pictures that are drawn at the same time. Fewer need less memory; the "
        "pictures stay the same.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check_fields(self)
