"""MODELs that cannot be trained: they compute in ways that training would not see."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...unlearn_core.models.errors import UnsupportedError

# Patches of whole objects that change no computation of the network, by their names.
KNOWN_OBJECTS = ("model_sampling", "latent_format", "manual_cast_dtype")
# Options that act in the sampler alone, such as those of RescaleCFG.
OF_THE_SAMPLER = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function",
    "disable_cfg1_optimization",
)  # fmt: skip
PLAIN = {Tensor, nn.Parameter}


def refuse_unsupported(patcher: ModelPatcher) -> None:
    """Refuse a MODEL with changes that training would not see.

    Raises:
        UnsupportedError: names the change and the remedy.
    """
    kind = _foreign_weights(patcher)
    if kind:
        raise UnsupportedError(
            f"model must have weights in a format of ComfyUI itself, got {kind} (GGUF or another "
            "quantization of a node pack); load the model in 16 bits or fp8"
        )
    change = _change(patcher)
    if change:
        raise UnsupportedError(
            f"model must compute as its loader made it, got one with {change}; link the MODEL from "
            "before the node that adds it (LoRAs and ModelSampling nodes may stay)"
        )
    if getattr(patcher.model, "concat_keys", ()):
        raise UnsupportedError(
            "model must draw pictures from a prompt, got an inpainting model, which also needs a "
            "picture and a mask; link the MODEL that it was made from"
        )


def _foreign_weights(patcher: ModelPatcher) -> str:
    """The class of the patcher or of a weight that is not ComfyUI's own; empty if there is none."""
    if "gguf" in f"{type(patcher).__module__}.{type(patcher).__name__}".lower():
        return type(patcher).__name__
    for parameter in patcher.model.parameters():
        kind = type(parameter)
        if kind not in PLAIN and not kind.__module__.startswith(("comfy.", "comfy_kitchen.")):
            return kind.__name__
    return ""


def _change(patcher: ModelPatcher) -> str:
    """The first change that is not understood, in words; empty if there is none."""
    options = patcher.model_options
    inside = options.get("transformer_options", {})
    objects = [name for name in patcher.object_patches if name not in KNOWN_OBJECTS]
    named = {
        f"patches of its blocks ({_names(inside.get('patches'))})": inside.get("patches"),
        f"replaced blocks ({_names(inside.get('patches_replace'))})": inside.get("patches_replace"),
        f"wrappers ({_names(patcher.wrappers)})": _filled(patcher.wrappers),
        f"wrappers ({_names(inside.get('wrappers'))})": _filled(inside.get("wrappers")),
        f"callbacks ({_names(patcher.callbacks)})": _filled(patcher.callbacks),
        "hooks on its weights": patcher.hook_patches,
        f"injections ({_names(patcher.injections)})": patcher.injections,
        "additional models": patcher.additional_models,
        "wrapped weights": patcher.weight_wrapper_patches,
        f"replaced objects ({', '.join(objects)})": objects,
        "a wrapped network (model_function_wrapper)": options.get("model_function_wrapper"),
        "a context window": options.get("context_handler"),
        "another calculation of guidance": options.get("sampler_calc_cond_batch_function"),
    }
    return next((words for words, present in named.items() if present), "")


def _filled(by_type: Any) -> list[object]:
    """Functions in the nested dictionaries of wrappers and callbacks."""
    return [f for by_key in (by_type or {}).values() for some in by_key.values() for f in some]


def _names(patches: Any) -> str:
    return ", ".join(str(name) for name, value in (patches or {}).items() if value)
