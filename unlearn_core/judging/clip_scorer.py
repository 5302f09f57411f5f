"""Alignment score: the cosine of open_clip's embeddings of a picture and its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from ..foundation.json_file import JsonError, read_object
from ..foundation.safetensors_file import non_finite_in

SCORER_CONFIG, SCORER_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CHUNK = 64  # pictures or texts per batch
LARGEST_CONFIG = 1_000_000  # bytes

REMOTE_KEYS = ("hf_model_name", "hf_tokenizer_name")
"""Names of settings with which open_clip would download a part of the model."""


def is_scorer(folder: Path) -> bool:
    """Whether the folder contains an open_clip model in safetensors format. Without such a
    file, open_clip would look for pickles."""
    return all((folder / name).is_file() for name in (SCORER_CONFIG, SCORER_WEIGHTS))


def check_scorer(folder: Path) -> None:
    """Check that the folder contains a complete CLIP, before any work is done.

    Raises:
        ValueError: a file is missing, unreadable or not finite, or refers to parts outside the
            folder.
    """
    if not is_scorer(folder):
        raise ValueError(
            f"scorer: {folder.name!r} is not a folder with {SCORER_CONFIG} and {SCORER_WEIGHTS}; "
            "choose the folder of an open_clip model"
        )
    try:
        config = read_object(folder / SCORER_CONFIG, LARGEST_CONFIG)["model_cfg"]
        text, vision = config["text_cfg"], config["vision_cfg"]
        remote = [text[name] for name in REMOTE_KEYS if name in text]
        # A name with a scheme, such as "hf-hub:owner/name", is one of timm's models on a hub.
        remote += [name for name in (vision.get("timm_model_name"),) if ":" in str(name)]
    except (JsonError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"scorer: {SCORER_CONFIG} of {folder.name!r} is not in open_clip's format "
            f"({error!r:.80}); download it again"
        ) from None
    if remote:
        raise ValueError(
            f"scorer: {folder.name!r} needs {remote[0]!r:.80} from the network; choose a "
            "CLIP that has all its files in its folder, such as ViT-B-32"
        )
    try:
        fault = non_finite_in(folder / SCORER_WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"scorer: {SCORER_WEIGHTS} of {folder.name!r} is truncated or damaged ({error}); "
            "download it again"
        ) from None
    if fault:
        raise ValueError(
            f"scorer: {SCORER_WEIGHTS} of {folder.name!r} holds {fault}; download it again"
        )


class ClipScorer:
    """An open_clip model from a local folder.

    Attributes:
        name: its name in a report.
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
        """Load a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``.

        Args:
            name: by default the folder's name.

        Raises:
            ImportError: open_clip is not installed; the message contains the install command.
            ValueError: ``check_scorer`` refuses the folder.
        """
        try:
            import open_clip
        except ImportError as error:
            raise ImportError("open_clip is not installed: pip install open_clip_torch") from error
        check_scorer(folder)
        source = f"local-dir:{folder.resolve()}"
        try:
            model, _, _ = open_clip.create_model_and_transforms(source)
        except RuntimeError as error:
            raise ValueError(
                f"scorer: {folder.name!r} cannot be opened ({error}); open_clip_torch 3 or newer "
                "is needed: pip install -U open_clip_torch"
            ) from None
        config = open_clip.get_model_preprocess_cfg(model)
        size = config["size"] if isinstance(config["size"], int) else config["size"][0]
        tokenizer = open_clip.get_tokenizer(source)
        return cls(
            model, tokenizer, size, config["mean"], config["std"], name or folder.name, device
        )

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in 0..1 -> unit vectors [N, D] on the CPU."""
        return torch.cat([self._embed(part) for part in images.split(CHUNK)]).cpu()

    def _embed(self, images: Tensor) -> Tensor:
        # On the CPU: torch does not support antialiased resizing on every Mac's GPU.
        resized = F.interpolate(images.cpu(), self.size, mode="bicubic", antialias=True)
        resized = resized.clamp(0, 1).to(self.device)
        return self.model.encode_image((resized - self.mean) / self.std, normalize=True)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors [N, D] on the CPU."""
        chunks = self.tokenizer(list(texts)).to(self.device).split(CHUNK)
        return torch.cat([self.model.encode_text(part, normalize=True) for part in chunks]).cpu()
