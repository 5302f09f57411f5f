"""A diffusers folder that is being loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .options import LoadOptions
from .protocol import ModelInfo


@dataclass(frozen=True)
class FolderSource:
    """The folder of a model, and how it is loaded.

    Attributes:
        index: the content of ``model_index.json``.
        fingerprint: of all weights and settings.
        device: for the loaded model.
        options: the user's.
    """

    folder: Path
    index: dict[str, Any]
    fingerprint: str
    device: torch.device
    options: LoadOptions

    def info(
        self, family: str, image_size: int, prediction_type: str, denoiser: str, *, mixed: bool
    ) -> ModelInfo:
        """The description of the loaded model; ``denoiser`` is the name of its subfolder."""
        return ModelInfo(
            self.folder.name,
            family,
            self.folder,
            self.fingerprint,
            image_size,
            prediction_type,
            denoiser,
            mixed,
        )
