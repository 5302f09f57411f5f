"""Clip skip: text embeddings from a layer before the last, as anime models of Stable Diffusion 1.5
were trained with."""

from __future__ import annotations

from dataclasses import replace

from .errors import ModelError
from .protocol import ModelHandle
from .stable_diffusion import StableDiffusionHandle
from .text import ClipText

OWN_LAYER = 2
"""The layer from the end that Stable Diffusion 2 and XL always use."""


def with_clip_skip(model: ModelHandle, clip_skip: int) -> ModelHandle:
    """The model with the text encoder's layer of this number from the end; unchanged for the
    model's own layer.

    Raises:
        ModelError: the model has no such layer, or uses a fixed one.
    """
    if clip_skip < OWN_LAYER:
        return model
    name = model.info.name
    if not isinstance(model, StableDiffusionHandle):
        raise ModelError(
            f"clip_skip must be 0 for {name!r}, got {clip_skip}; it has no such layers"
        )
    text = model.text
    if not isinstance(text, ClipText) or model.info.family == "sd2":
        if clip_skip == OWN_LAYER:
            return model
        raise ModelError(
            f"clip_skip must be 0 to {OWN_LAYER} for {name!r}, got {clip_skip}: Stable Diffusion 2 "
            "and XL use a fixed layer"
        )
    layers = int(text.clips[0].encoder.config.num_hidden_layers)
    if clip_skip > layers:
        raise ModelError(f"clip_skip must be at most {layers} for {name!r}, got {clip_skip}")
    return replace(
        model,
        text=replace(text, clip_skip=clip_skip),
        info=replace(model.info, clip_skip=clip_skip),
    )
