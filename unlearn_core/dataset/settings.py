"""How the model draws pictures, and which pictures of a person's own join them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..foundation.checks import LARGEST_SEED, check_positive, check_whole
from ..models.protocol import OnPicture
from .own_pictures import OwnPictures, read_folder


@dataclass(frozen=True)
class PictureSettings:
    """A person's own pictures: a folder of them, and captions as ``read_folder`` takes them.

    Attributes:
        alone: whether they take the place of what the model draws, or join it.
    """

    folder: Path
    captions: str = ""
    alone: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, Path)):
            raise ValueError(f"folder must be the path of a folder, got {self.folder!r}")
        if not isinstance(self.captions, str):
            raise ValueError(f"captions must be a text, one a line, got {self.captions!r:.80}")
        if not isinstance(self.alone, bool):
            raise ValueError(f"alone must be true or false, got {self.alone!r}")

    def read(self, on_picture: OnPicture | None = None) -> OwnPictures:
        """The pictures.

        Args:
            on_picture: progress: (pictures read, pictures in all).

        Raises:
            ValueError: no such folder, no picture in it, or one without a caption.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise ValueError(f"folder: {str(folder)!r} does not exist")
        return read_folder(folder, self.captions, self.alone, on_picture)


LARGEST_SAMPLING = 1000  # steps: as many timesteps as the models were trained with


@dataclass(frozen=True)
class GenerationSettings:
    """How the model draws pictures.

    Attributes:
        steps: denoising steps of the sampler.
        guidance_scale: classifier-free guidance; 1 switches it off.
        seed: first seed; picture i uses ``seed + i``.
        batch_size: pictures drawn at once.
    """

    steps: int = 12
    guidance_scale: float = 4.0
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1, LARGEST_SAMPLING)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0, LARGEST_SEED)
        check_positive("guidance_scale", self.guidance_scale)
