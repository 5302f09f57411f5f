"""The core's pictures as ComfyUI wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor


def as_image(picture: Image.Image) -> Tensor:
    """IMAGE, [1, H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]


def stacked(*pictures: Image.Image) -> Image.Image:
    """The pictures one above the other, as wide as the widest, on white."""
    width = max(picture.width for picture in pictures)
    canvas = Image.new("RGB", (width, sum(picture.height for picture in pictures)), "white")
    y = 0
    for picture in pictures:
        canvas.paste(picture, ((width - picture.width) // 2, y))
        y += picture.height
    return canvas


def shown(node: type[io.ComfyNode], image: Tensor | None = None, text: str = "") -> dict[str, Any]:
    """What a node shows on itself: an IMAGE, a text, or both."""
    return {
        **({} if image is None else ui.PreviewImage(image, cls=node).as_dict()),
        **(ui.PreviewText(text).as_dict() if text else {}),
    }
