"""Trainable scopes: a name becomes the parameters that unlearning may change."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from ..models.errors import UnsupportedError
from ..models.protocol import ModelHandle

LORA = "lora"
# The layers that kohya's LoRA trainer adapts: everything linear in the transformer blocks, and the
# projections in and out of them.
LORA_WEIGHT = re.compile(
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)\.weight"
)

# ESD's code trains neither cross-attention nor these: the timestep's embedding and the last layers.
NOT_OF_NOXATTN = re.compile(r"(.*\.attn2|time_embedding|conv_norm_out|conv_out)\..*")

SCOPES: dict[str, Callable[[str], bool]] = {
    "xattn": lambda name: ".attn2." in name,
    "noxattn": lambda name: NOT_OF_NOXATTN.fullmatch(name) is None,
    "full": lambda name: True,
    LORA: lambda name: LORA_WEIGHT.fullmatch(name) is not None,
}
"""Scope -> whether it holds the parameter of that name; ``attn2`` is diffusers' cross-attention.
With ``lora`` those weights stay as they are, and low-rank layers beside them are trained."""


def parameter_names(model: ModelHandle, scope: str) -> list[str]:
    """Names of the parameters in ``scope``, in the model's own order.

    Raises:
        ValueError: for an unknown scope, or one that is empty in this model.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    names = [name for name, _ in model.named_parameters() if SCOPES[scope](name)]
    if not names:
        raise UnsupportedError(
            f"scope {scope!r} holds no parameter of {model.info.name!r}: "
            f"a {model.info.family} model has none, choose 'full'"
        )
    return names


def trainable(
    model: ModelHandle, scope: str, *, lora_rank: int, lora_alpha: float, seed: int
) -> tuple[ModelHandle, list[nn.Parameter]]:
    """A copy of the model, and those of its parameters that may change.

    Args:
        lora_rank, lora_alpha: size and strength of the layers that scope ``lora`` trains.
        seed: of their first weights.

    Raises:
        ValueError: a scope that is empty in this model.
    """
    names = parameter_names(model, scope)
    if scope == LORA:
        copied = model.lora_copy(names, lora_rank, lora_alpha, seed)
        return copied, [p for _, p in copied.named_parameters() if p.requires_grad]
    copied, wanted = model.trainable_copy(names), set(names)
    return copied, [p for name, p in copied.named_parameters() if name in wanted]
