"""Room on the device, which ComfyUI's own models may still fill."""

from __future__ import annotations

from comfy.model_management import soft_empty_cache, unload_all_models


def make_room() -> None:
    """Have ComfyUI unload its models: they come back by themselves when they are asked for, and
    what a model needs for pictures and gradients cannot be told beforehand."""
    unload_all_models()
    soft_empty_cache()
