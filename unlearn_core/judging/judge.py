"""Judges, which classify pictures: a trained classifier from the model's folder, or CLIP."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..foundation.checks import check_whole, require_words
from ..foundation.finite import non_finite
from ..foundation.json_file import JsonError, read_object
from .clip_scorer import ClipScorer

JUDGE_FILE, JUDGE_WEIGHTS = "judge.json", "judge.safetensors"
LARGEST_SIZE = 4096  # pixels
NOISE = "random noise"  # the paper's extra class for pictures without content


class Judge(Protocol):
    """Classifies pictures: one value per dimension, or None for "none of these".

    Attributes:
        dimensions: name -> the values that the judge knows.
    """

    dimensions: Mapping[str, Sequence[str]]

    def classify(self, images: Tensor) -> dict[str, list[str | None]]:
        """Images [N, 3, H, W] in 0..1 -> for each dimension, N values."""
        ...


class ConvJudge(nn.Module):
    """A small convolutional classifier with one head per dimension.

    The last class of every head means "none of these": noise, blur, broken pictures.

    Args:
        size: of the pictures that the classifier was trained on, in pixels; larger ones are reduced
            to it.
    """

    def __init__(self, dimensions: Mapping[str, Sequence[str]], size: int) -> None:
        super().__init__()
        self.size = size
        self.dimensions: Mapping[str, Sequence[str]] = {
            name: tuple(values) for name, values in dimensions.items()
        }
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1, stride=2)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * widths[-1], len(v) + 1) for name, v in dimensions.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, 3, H, W] in 0..1 -> logits [B, values + 1] of each dimension."""
        pooled = self.pooled(images)
        return {name: head(pooled) for name, head in self.heads.items()}

    def pooled(self, images: Tensor) -> Tensor:
        """The heads' inputs [B, 256] from images [B, 3, H, W] in 0..1."""
        maps = self.features(images * 2 - 1)  # [B, 128, h, w]
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)

    @torch.no_grad()
    def classify(self, images: Tensor) -> dict[str, list[str | None]]:
        self.eval()
        values: dict[str, list[str | None]] = {name: [] for name in self.dimensions}
        for chunk in images.split(64):
            for name, logits in self(self._reduced(chunk)).items():
                choices = (*self.dimensions[name], None)
                values[name] += [choices[i] for i in logits.argmax(1).tolist()]
        return values

    def _reduced(self, images: Tensor) -> Tensor:
        if max(images.shape[2:]) <= self.size:
            return images
        size = (self.size, self.size)
        return interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)

    def save(self, folder: Path) -> None:
        """Write ``judge.json`` and fp16 ``judge.safetensors``."""
        settings = {"dimensions": self.dimensions, "size": self.size}
        (folder / JUDGE_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        save_file({k: v.half() for k, v in self.state_dict().items()}, folder / JUDGE_WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> ConvJudge:
        """Load ``judge.json`` and ``judge.safetensors``.

        Raises:
            ValueError: one of them is damaged.
        """
        try:
            return cls._load(folder)
        except (OSError, RuntimeError, KeyError, TypeError, SafetensorError, JsonError) as error:
            raise ValueError(
                f"judge: {JUDGE_FILE} or {JUDGE_WEIGHTS} of the model is damaged ({error}); copy "
                f"or download it again, or remove {JUDGE_FILE} to evaluate without it"
            ) from None

    @classmethod
    def _load(cls, folder: Path) -> ConvJudge:
        settings = read_object(folder / JUDGE_FILE)
        dimensions = settings["dimensions"]
        check_whole("judge.size", settings["size"], 1, LARGEST_SIZE)
        if not isinstance(dimensions, dict):
            raise TypeError(f"dimensions must be an object, got {dimensions!r:.80}")
        for name, values in dimensions.items():
            require_words(f"judge.dimensions.{name}", values)
        judge = cls(dimensions, settings["size"])
        state = load_file(folder / JUDGE_WEIGHTS)
        if fault := non_finite(state.items()):
            raise ValueError(
                f"judge: {JUDGE_WEIGHTS} of the model holds {fault}; copy or download it again, or "
                f"remove {JUDGE_FILE} to evaluate without it"
            )
        target = judge.state_dict()
        judge.load_state_dict({k: v.to(target[k].dtype) for k, v in state.items()})
        return judge.eval()


class ZeroShotJudge:
    """Zero-shot classification by CLIP: the nearest caption among a dimension's values, with
    "random noise" as an extra class."""

    def __init__(self, scorer: ClipScorer, dimensions: Mapping[str, Sequence[str]]) -> None:
        self.scorer = scorer
        self.dimensions: Mapping[str, Sequence[str]] = {
            name: tuple(values) for name, values in dimensions.items()
        }
        self.captions = {
            name: scorer.embed_texts([*(_caption(name, value) for value in values), NOISE])
            for name, values in self.dimensions.items()
        }  # [values + 1, D] each

    def classify(self, images: Tensor) -> dict[str, list[str | None]]:
        return self.classify_embeddings(self.scorer.embed_images(images))

    def classify_embeddings(self, embeddings: Tensor) -> dict[str, list[str | None]]:
        """Classify pictures by their embeddings from the scorer, [N, D]."""
        result: dict[str, list[str | None]] = {}
        for name, values in self.dimensions.items():
            nearest = (embeddings @ self.captions[name].T).argmax(1)
            choices = (*values, None)
            result[name] = [choices[i] for i in nearest.tolist()]
        return result


def _caption(dimension: str, value: str) -> str:
    return f"a picture in {value} style" if dimension == "style" else f"a picture of {value}"
