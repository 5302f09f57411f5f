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


def shown(node: type[io.ComfyNode], *images: Tensor, text: str = "") -> dict[str, Any]:
    """What a node shows on itself: IMAGEs, which may differ in size, and a text."""
    saved = [entry for image in images for entry in ui.PreviewImage(image, cls=node).values]
    return {
        **({"images": saved} if saved else {}),
        **(ui.PreviewText(text).as_dict() if text else {}),
    }
