"""What a run has made, as one file, to go on with later, and what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..dataset.own_pictures import OwnPictures
from ..dataset.settings import GenerationSettings
from ..foundation.atomic import appearing
from ..models.protocol import ModelHandle
from ..models.tensors import with_tensors
from ..prompts.pairs import PromptPairs
from ..unlearning.methods import method_of
from ..unlearning.results import StepReport, UnlearnedModel
from ..unlearning.scopes import trainable
from ..unlearning.settings import TO_THE_END, UnlearnSettings

FACTORS = ("down", "up")  # of a ``LoraLayer``
LATER_SETTINGS = {"uce_tokens": TO_THE_END, "diversified": True}
"""Settings that earlier versions did not have, with the value that they worked by: results of those
versions do not name them."""


def made_from(
    base: ModelHandle,
    pairs: PromptPairs,
    settings: UnlearnSettings,
    drawing: GenerationSettings,
    forget_pictures: OwnPictures | None,
    retain_pictures: OwnPictures | None,
) -> dict[str, Any]:
    """All that decides what a run comes to, as JSON, by the sections of a settings file: equal for
    two runs that come to the same. The test prompts are no part of it."""
    info = base.info
    pictures = asdict(drawing)
    del pictures["batch_size"]  # a seed gives the same picture in any batch
    content = {
        "model": info.fingerprint,
        "loading": [info.prediction, info.mixed, info.image_size, info.vae],
        "concept": [asdict(part.concept) for part in pairs.each],
        "prompts": [_digest(json.dumps([asdict(p) for p in part.train])) for part in pairs.each],
        "unlearn": {
            name: value
            for name, value in asdict(settings).items()
            if LATER_SETTINGS.get(name) != value
        },
        "generation": pictures,
        "forget_pictures": _pictures(forget_pictures),
        "retain_pictures": _pictures(retain_pictures),
    }
    return json.loads(json.dumps(content))


def _pictures(own: OwnPictures | None) -> list[object] | None:
    return None if own is None else [own.captions, own.alone, list(map(_picture, own.images))]


def _picture(picture: Tensor | Path) -> list[object]:
    if isinstance(picture, Path):
        return [hashlib.sha256(picture.read_bytes()).hexdigest()]
    pixels = picture.contiguous().numpy().tobytes()
    return [*picture.shape, hashlib.sha256(pixels).hexdigest()]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_unlearned(unlearned: UnlearnedModel, file: Path, said: Mapping[str, Any]) -> None:
    """The changed tensors and the steps' reports in one file, for weights and what is said of them
    must never be of two runs.

    Args:
        said: what to keep beside them, as JSON.
    """
    metadata = {
        "said": json.dumps(said),
        "steps": json.dumps([asdict(step) for step in unlearned.reports]),
    }
    tensors = {name: tensor.contiguous() for name, tensor in state(unlearned.model).items()}
    with appearing(file) as part:
        save_file(tensors, part, metadata)


def read_said(file: Path) -> dict[str, Any]:
    """What was kept beside the tensors.

    Raises:
        ValueError: no file, or none that ``write_unlearned`` wrote.
    """
    said = _metadata(file, "said")
    if not isinstance(said, dict):
        raise ValueError(f"{file.name!r} holds no unlearned model")
    return said


def read_unlearned(
    file: Path, base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings
) -> UnlearnedModel:
    """The model again, made from the ``base``, ``pairs`` and ``settings`` that it was made from.

    Raises:
        ValueError: no file, or none that ``write_unlearned`` wrote.
    """
    try:
        reports = tuple(StepReport(**step) for step in _metadata(file, "steps"))
        model = _with_state(base, settings, load_file(file))
    except (TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{file.name!r} holds no unlearned model ({error})") from None
    return UnlearnedModel(model, base, pairs, settings, reports)


def state(model: ModelHandle) -> Mapping[str, Tensor]:
    """All that tells an unlearned model from its base: the factors of its LoRA layers, which added
    to the weights would be hundreds of times as large, or else the tensors that have changed."""
    layers = model.lora_layers()
    if not layers:
        return model.changed_tensors()
    return {
        f"{name}.{factor}": getattr(layer, factor)
        for name, layer in layers.items()
        for factor in FACTORS
    }


def _with_state(
    base: ModelHandle, settings: UnlearnSettings, found: Mapping[str, Tensor]
) -> ModelHandle:
    if not method_of(settings).adds_layers(settings):
        return with_tensors(base, found)
    model, _ = trainable(
        base,
        settings.scope,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        seed=settings.seed,
    )
    with torch.no_grad():
        for name, layer in model.lora_layers().items():
            for factor in FACTORS:
                getattr(layer, factor).copy_(found[f"{name}.{factor}"])
    for _, parameter in model.named_parameters():
        parameter.requires_grad_(False)
    return model


def _metadata(file: Path, key: str) -> Any:
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {})[key])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file.name!r} holds no unlearned model ({error})") from None
