"""Alignment score: cosine of open_clip's image and text embeddings, prompt against picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCORER_CONFIG, SCORER_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CHUNK = 64  # pictures or texts at once

ELSEWHERE = ("hf_model_name", "hf_tokenizer_name")
"""Settings by which open_clip would fetch a part of the model from the network."""


def is_scorer(folder: Path) -> bool:
    """Whether the folder holds an open_clip model; only as safetensors, for without that file
    open_clip would look for pickles."""
    return all((folder / name).is_file() for name in (SCORER_CONFIG, SCORER_WEIGHTS))


def check_scorer(folder: Path) -> None:
    """Refuse a folder from which no CLIP can be read, before any work is done.

    Raises:
        ValueError: a file is missing or unreadable, or names parts that are not in the folder.
    """
    if not is_scorer(folder):
        raise ValueError(
            f"scorer: {folder.name!r} is no folder with {SCORER_CONFIG} and {SCORER_WEIGHTS}, "
            "choose the folder of an open_clip model"
        )
    try:
        config = json.loads((folder / SCORER_CONFIG).read_text(encoding="utf-8"))
        text = config["model_cfg"]["text_cfg"]
        elsewhere = [name for name in ELSEWHERE if name in text]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"scorer: {SCORER_CONFIG} of {folder.name!r} is not open_clip's ({error!r:.80}), "
            "download it again"
        ) from None
    if elsewhere:
        raise ValueError(
            f"scorer: {folder.name!r} takes {text[elsewhere[0]]!r:.80} from the network; choose a "
            "CLIP that is whole in its folder, such as ViT-B-32"
        )


class ClipScorer:
    """An open_clip model read from a local folder.

    Attributes:
        name: what a report calls it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        name: str = "CLIP",
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False).to(device), tokenizer
        self.size, self.name, self.device = size, name, device
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @classmethod
    def load(
        cls, folder: Path, *, name: str = "", device: torch.device | str = "cpu"
    ) -> ClipScorer:
        """Open a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``.

        Args:
            name: default: the folder's.

        Raises:
            ImportError: open_clip is not installed; says how it is.
            ValueError: what ``check_scorer`` refuses.
        """
        try:
            import open_clip
        except ImportError as error:
            raise ImportError("open_clip is not installed: pip install open_clip_torch") from error
        check_scorer(folder)
        place = f"local-dir:{folder.resolve()}"
        try:
            model, _, _ = open_clip.create_model_and_transforms(place)
        except RuntimeError as error:
            raise ValueError(
                f"scorer: {folder.name!r} cannot be opened ({error}); open_clip_torch 3 or newer "
                "is needed: pip install -U open_clip_torch"
            ) from None
        seen = open_clip.get_model_preprocess_cfg(model)
        size = seen["size"] if isinstance(seen["size"], int) else seen["size"][0]
        tokenizer = open_clip.get_tokenizer(place)
        return cls(model, tokenizer, size, seen["mean"], seen["std"], name or folder.name, device)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in 0..1 -> unit vectors [N, D] on the CPU."""
        return torch.cat([self._embed(part) for part in images.split(CHUNK)]).cpu()

    def _embed(self, images: Tensor) -> Tensor:
        # On the CPU, where they come from: not every Mac's torch can smooth as it shrinks.
        resized = F.interpolate(images.cpu(), self.size, mode="bicubic", antialias=True)
        resized = resized.clamp(0, 1).to(self.device)
        return self.model.encode_image((resized - self.mean) / self.std, normalize=True)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors [N, D] on the CPU."""
        chunks = self.tokenizer(list(texts)).to(self.device).split(CHUNK)
        return torch.cat([self.model.encode_text(part, normalize=True) for part in chunks]).cpu()
