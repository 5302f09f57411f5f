"""Trainable scopes: the parameters that unlearning may change, by the name of the scope."""

from __future__ import annotations

from torch import nn

from ..models.errors import UnsupportedError
from ..models.layers import LORA, SCOPES
from ..models.protocol import ModelHandle


def parameter_names(model: ModelHandle, scope: str) -> list[str]:
    """Names of the parameters in ``scope``, in the model's own order.

    Raises:
        ValueError: unknown scope, or a scope that is empty in this model.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    names = model.parameters_in(scope)
    if not names:
        raise UnsupportedError(
            f"scope must be 'full' for {model.info.name!r}, got {scope!r}: a {model.info.family} "
            "model has no such layers"
        )
    return names


def trainable(
    model: ModelHandle, scope: str, *, lora_rank: int, lora_alpha: float, seed: int
) -> tuple[ModelHandle, list[nn.Parameter]]:
    """Copy the model; return the copy and its trainable parameters.

    Args:
        lora_rank, lora_alpha: size and strength of the layers that scope ``lora`` trains.
        seed: seed of their initial weights.

    Raises:
        ValueError: a scope that is empty in this model.
    """
    names = parameter_names(model, scope)
    if scope == LORA:
        copied = model.lora_copy(names, lora_rank, lora_alpha, seed)
        return copied, [p for _, p in copied.named_parameters() if p.requires_grad]
    copied, in_scope = model.trainable_copy(names), set(names)
    return copied, [p for name, p in copied.named_parameters() if name in in_scope]
