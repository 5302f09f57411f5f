"""The core's pictures as ComfyUI wants them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...unlearn_core.reporting.grids import picture_file

SUBFOLDER = "unlearn"  # of ComfyUI's folder for what may be lost

FilePlace = dict[str, str]  # by which the page asks for a file


def temp_folder(name: str) -> Path:
    """A folder of the pack's own that may be lost: ComfyUI empties it when it starts."""
    return Path(folder_paths.get_temp_directory(), SUBFOLDER, name)


def to_temp(picture: Image.Image, folder: str, name: str) -> FilePlace:
    """Write a picture into ``temp_folder(folder)``, for the page."""
    content, suffix = picture_file(picture)
    path = temp_folder(folder) / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"filename": path.name, "subfolder": f"{SUBFOLDER}/{folder}", "type": "temp"}


def as_image(picture: Image.Image) -> Tensor:
    """IMAGE, [1, H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
