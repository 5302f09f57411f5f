"""Registration of the pack's models with ComfyUI's memory management, which then loads and unloads
them like its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...unlearn_core.models.protocol import ModelHandle
from ...unlearn_core.models.weights import move
from ...unlearn_core.unlearning.results import UnlearnedModel

ALL = 10**30
"""Bytes for gradients, optimizer state and activations. Their size is estimated only later, so this
requests the whole GPU: ComfyUI unloads all other models, and reloads each when it is needed."""
DRAWING = 4 * 2**30
"""Bytes for drawing two pictures at once: decoding one of 1024 px takes 3 GiB."""


class UnlearnWeights(nn.Module):
    """The tensors that a handle owns; ComfyUI counts and moves them as one model. They are a plain
    list rather than parameters of this module, because the handle's networks share them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.tensors = tensors
        self.size = sum(tensor.nbytes for tensor in tensors)
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def move(self, device: torch.device) -> None:
        move(self.tensors, device)
        self.device = device


class WholeModelPatcher(ModelPatcher):
    """Loads and unloads all weights or none: gradients need them on one device, and unlike
    ComfyUI's, the layers of diffusers and transformers cannot fetch offloaded weights."""

    model: UnlearnWeights

    def loaded_size(self) -> int:
        return self.model.size if _same(self.model.device, self.load_device) else 0

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> int:
        """Load all that is missing, and return its bytes."""
        missing = self.model.size - self.loaded_size()
        try:
            self.model.move(device_to)
        except RuntimeError:  # out of memory: leave nothing on the GPU that ComfyUI cannot unload
            self.detach()
            raise
        return missing

    def partially_unload(
        self, device_to: torch.device, memory_to_free: float = 0, force_patch_weights: bool = False
    ) -> int:
        """Free nothing, so that ComfyUI unloads the whole model."""
        return 0

    def detach(self, unpatch_all: bool = True) -> UnlearnWeights:
        """Unload; without ``unpatch_all`` the weights stay where they are, as in the base class."""
        if unpatch_all:
            self.model.move(self.offload_device)
        return self.model


@torch.inference_mode(False)  # weights that are moved in this mode could not be trained
def load(model: ModelHandle | UnlearnedModel, room: int = 0) -> None:
    """Load a model's weights onto the GPU; with an unlearned model also those of its base.

    Args:
        room: bytes to free in addition; ``ALL`` for the whole GPU.
    """
    handles = [model.base, model.model] if isinstance(model, UnlearnedModel) else [model]
    patchers = list(dict.fromkeys(part for handle in handles for part in _patchers(handle)))
    # The output cache of newer ComfyUIs recognises a model by this attribute.
    vars(model)["patcher"] = patchers[-1]
    comfy.model_management.load_models_gpu(patchers, memory_required=room, force_full_load=True)


def is_loaded(model: ModelHandle) -> bool:
    """Whether ComfyUI has all weights of the model on the GPU."""
    loaded = {id(one.model) for one in comfy.model_management.current_loaded_models}
    return all(id(patcher) in loaded for patcher in _patchers(model))


def _patchers(handle: ModelHandle) -> list[ModelPatcher]:
    """The patchers of a handle's weights. A handle of a MODEL of ComfyUI has the MODEL's own, and
    a second one for trained layers."""
    network: ModelPatcher | None = getattr(handle, "patcher_of_network", None)
    if network is None:
        return [_patcher(handle)]
    return [network, _patcher(handle)] if handle.own_tensors() else [network]


def _patcher(handle: ModelHandle) -> ModelPatcher:
    """The patcher of the tensors that a handle owns, stored in it: ComfyUI holds patchers weakly,
    and this one should live exactly as long as the handle."""
    patcher = vars(handle).get("patcher")
    if patcher is None:
        weights = UnlearnWeights(handle.own_tensors())
        device = comfy.model_management.get_torch_device()
        offload_device = comfy.model_management.unet_offload_device()
        patcher = WholeModelPatcher(weights, device, offload_device, weights.size)
        vars(handle)["patcher"] = patcher
    return patcher


def _same(one: torch.device, other: torch.device) -> bool:
    """Whether both are the same device: ComfyUI names it "mps", its tensors report "mps:0"."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


def free_bytes(device: torch.device) -> int | None:
    """The memory that new tensors can use; None for devices of which ComfyUI does not know it."""
    if device.type not in ("cuda", "xpu", "cpu", "mps"):
        return None
    free: Any = comfy.model_management.get_free_memory(device)
    return free


def make_room_for(path: Path) -> torch.device:
    """Free GPU memory for a model about to be read from a file or folder, and return the device.
    Frees twice the size on disk, because 16-bit weights may be converted to 32 bits."""
    files = [path] if path.is_file() else path.rglob("*.safetensors")
    device = comfy.model_management.get_torch_device()
    comfy.model_management.free_memory(2 * sum(file.stat().st_size for file in files), device)
    return device
