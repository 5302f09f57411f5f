"""How the model draws pictures, and which pictures of a person's own join them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..foundation.checks import LARGEST_SEED
from ..foundation.fields import Range, check_fields, number, other, whole
from ..foundation.progress import Progress
from .own_pictures import OwnPictures, read_folder


@dataclass(frozen=True)
class PictureSettings:
    """A person's own pictures: a folder of them, and captions as ``read_folder`` takes them."""

    folder: Path = field(metadata=other("the path of a folder", help="Folder of the pictures."))
    captions: str = field(
        default="",
        metadata=other(
            "a text, one caption a line",
            help="A line 'name: caption' for one picture, a line for each of them, or one line for "
            "all. A text file beside a picture counts before the one line for all.",
        ),
    )
    alone: bool = field(
        default=False,
        metadata=other(
            "true or false",
            help="Whether they take the place of what the model draws, or join it.",
        ),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, Path)):
            raise ValueError(f"folder must be the path of a folder, got {self.folder!r}")
        if not isinstance(self.captions, str):
            raise ValueError(f"captions must be a text, one a line, got {self.captions!r:.80}")
        if not isinstance(self.alone, bool):
            raise ValueError(f"alone must be true or false, got {self.alone!r}")

    def read(self, progress: Progress | None = None) -> OwnPictures:
        """The pictures.

        Args:
            progress: ticks once for each picture.

        Raises:
            ValueError: no such folder, no picture in it, or one without a caption.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise ValueError(f"folder: {str(folder)!r} does not exist")
        return read_folder(folder, self.captions, self.alone, progress)


LARGEST_SAMPLING = 1000  # steps: as many timesteps as the models were trained with


@dataclass(frozen=True)
class GenerationSettings:
    """How the model draws pictures."""

    steps: int = whole(
        12,
        least=1,
        most=LARGEST_SAMPLING,
        help="Sampling steps of every picture drawn here. More draws finer pictures and takes "
        "longer.",
        advanced=True,
    )
    guidance_scale: float = number(
        4.0,
        above=0,
        offered=Range(0.1, 100.0, 0.1),
        help="How closely those pictures follow their prompts. Use what you draw with; 1 switches "
        "guidance off, which is twice as fast. Models of classes without an empty class draw "
        "without guidance.",
        advanced=True,
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="First seed of the pictures; each next one counts up from it. Another seed draws "
        "other pictures of the same prompts.",
        advanced=True,
    )
    batch_size: int = whole(
        16,
        least=1,
        offered=1024,
        help="Pictures drawn at once. Fewer need less memory; the pictures stay the same.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check_fields(self)
