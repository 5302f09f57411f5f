"""Handles of tiny MODELs, and training sets for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ..pack import pack_module
from .tiny_networks import ARCHITECTURES, StandInClip, Tiny, TinyVae, model

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def opened(name: str, given: Any = None, **options: Any) -> Any:
    """The handle of a MODEL of one of ``ARCHITECTURES``, with a VAE."""
    return opened_tiny(ARCHITECTURES[name], model(name) if given is None else given, **options)


def opened_tiny(tiny: Tiny, given: Any, **options: Any) -> Any:
    vae = TinyVae(tiny.latent[0], given.model.latent_format.latent_dimensions)
    edge = 8 * tiny.latent[1]
    native = pack_module("nodes.native.opening")
    return native.open_native(given, StandInClip(tiny), vae, **{"image_size": edge, **options})


def trained(name: str, pairs: Any, given: Any = None, **settings: Any) -> tuple[Any, Any]:
    """A handle of a tiny MODEL, and the result of ``train``."""
    handle = opened(name, given)
    return handle, train(handle, pairs, **settings)


def train(handle: Any, pairs: Any, **settings: Any) -> Any:
    """The result of a few restricted steps of the core's own loop."""
    engine = pack_module("unlearn_core.job.engine")
    settings_module = pack_module("unlearn_core.unlearning.settings")
    drawing_module = pack_module("unlearn_core.dataset.settings")
    quick = {"steps": 3, "batch_size": 2, "learning_rate": 0.01, "scope": "auto", "lora_rank": 4}
    task = engine.Task(
        handle,
        pairs,
        settings_module.UnlearnSettings(**{**quick, **settings}),
        drawing_module.GenerationSettings(steps=2, guidance_scale=2.0, batch_size=2),
    )
    task.check()
    with torch.inference_mode(False):
        return engine.unlearn(task, engine.Observer())
