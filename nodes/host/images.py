"""Conversion of the core's pictures to ComfyUI's formats."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...unlearn_core.foundation.disk_errors import delete, unwritten
from ...unlearn_core.reporting.grids import picture_file

SUBFOLDER = "unlearn"  # of ComfyUI's temp folder

FilePlace = dict[str, str]  # filename, subfolder and type: the parameters of ComfyUI's /view


def temp_folder(name: str) -> Path:
    """A folder for temporary files: ComfyUI empties it at every start."""
    return Path(folder_paths.get_temp_directory(), SUBFOLDER, name)


def to_temp(picture: Image.Image, folder: str, name: str) -> FilePlace:
    """Write a picture for the page into ``temp_folder(folder)``.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    content, suffix = picture_file(picture)
    path = temp_folder(folder) / f"{name}.{suffix}"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        delete(part)
        raise unwritten(path, error) from error
    return {"filename": path.name, "subfolder": f"{SUBFOLDER}/{folder}", "type": "temp"}


def as_image(picture: Image.Image) -> Tensor:
    """Convert to ComfyUI's IMAGE: [1, H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
