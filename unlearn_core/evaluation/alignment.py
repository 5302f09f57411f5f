"""Alignment score: cosine of open_clip's image and text embeddings, prompt against picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCORER_CONFIG, SCORER_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class ClipScorer:
    """An open_clip model read from a local folder."""

    def __init__(
        self, model: Any, tokenizer: Any, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.size = size
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    @classmethod
    def load(cls, folder: Path) -> ClipScorer:
        """Open a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``."""
        try:
            import open_clip
        except ImportError as error:
            raise ImportError("open_clip is not installed: pip install open_clip_torch") from error
        name = f"local-dir:{folder.resolve()}"
        model, _, _ = open_clip.create_model_and_transforms(name)
        seen = open_clip.get_model_preprocess_cfg(model)
        size = seen["size"] if isinstance(seen["size"], int) else seen["size"][0]
        return cls(model, open_clip.get_tokenizer(name), size, seen["mean"], seen["std"])

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in 0..1 -> unit vectors [N, D]."""
        resized = F.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        chunks = ((resized - self.mean) / self.std).split(64)
        return torch.cat([self.model.encode_image(part, normalize=True) for part in chunks])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors [N, D]."""
        chunks = self.tokenizer(list(texts)).split(64)
        return torch.cat([self.model.encode_text(part, normalize=True) for part in chunks])

    def alignment(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of every picture with its own prompt, [N], -1..1."""
        return (self.embed_images(images) * self.embed_texts(prompts)).sum(1)
