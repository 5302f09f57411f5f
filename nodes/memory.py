"""Room on the device, which ComfyUI's own models may still fill."""

from __future__ import annotations

from pathlib import Path

from comfy.model_management import free_memory, get_torch_device

from ..unlearn_core.models.protocol import ModelHandle
from ..unlearn_core.parameters import LORA, parameter_names
from ..unlearn_core.settings import UnlearnSettings

FP32_OVER_FILE = 2  # most files hold 16 bits a weight
TRAINING_BYTES = 20  # a trained weight, its two gradients, and Adam's two moments, each 4 bytes


def make_room_to_load(path: Path) -> None:
    """Ask ComfyUI to unload other models if the one at ``path`` would not fit."""
    files = path.rglob("*.safetensors") if path.is_dir() else [path]
    free_memory(FP32_OVER_FILE * sum(file.stat().st_size for file in files), get_torch_device())


def make_room_to_train(model: ModelHandle, settings: UnlearnSettings) -> None:
    """The same before unlearning.

    Raises:
        ValueError: a scope that the model has nothing of.
    """
    names = set(parameter_names(model, settings.scope))
    if settings.scope == LORA:
        return  # what it trains is small
    weights = sum(p.numel() for name, p in model.named_parameters() if name in names)
    free_memory(TRAINING_BYTES * weights, model.device)
