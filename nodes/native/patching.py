"""The trained change as a patch of the given MODEL, by ComfyUI's own means."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .handle import NativeHandle
from .lora_file import lora_state_dict


@torch.inference_mode(False)
def patched_model(given: ModelPatcher, handle: NativeHandle, strength: float) -> ModelPatcher:
    """A clone of ``given`` with the change of ``handle``, for KSampler, LoraLoader, ModelMerge and
    CheckpointSave. ``given`` is not changed.

    Args:
        handle: trained from ``given``, or from another model of its architecture.
        strength: 1 for the change as trained; 0 for none, bit for bit.
    """
    return with_lora(given, lora_state_dict(handle) if strength else {}, strength)


@torch.inference_mode(False)
def with_lora(given: ModelPatcher, lora: Mapping[str, Tensor], strength: float) -> ModelPatcher:
    """A clone of ``given`` with the tensors of a LoRA file, which it shares.

    Args:
        lora: under ComfyUI's own names.
    """
    if strength == 0:
        return given.clone()
    model, _ = comfy.sd.load_lora_for_models(given, None, dict(lora), strength, 0)
    assert model is not None, "there is none only without `given`"
    return model
