"""Scopes: named groups of layers of a diffusers denoiser."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

XATTN, NOXATTN, NOXATTN_2025, FULL, LORA = "xattn", "noxattn", "noxattn-2025", "full", "lora"

# The layers that kohya's LoRA trainer adapts: all linear layers in the transformer blocks, and the
# projections into and out of them.
LORA_WEIGHT = re.compile(
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)\.weight"
)
# Names in diffusers: ``attn2`` is cross-attention; the others are the timestep embedding and the
# last layers.
CROSS_ATTENTION = ".attn2."
TIME_AND_OUT = ("time_embedding.", "conv_norm_out.", "conv_out.")
KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


def _noxattn(name: str) -> bool:
    return CROSS_ATTENTION not in name and not name.startswith(TIME_AND_OUT)


def _noxattn_2025(name: str) -> bool:
    """Linear layers and convolutions; all other layers are normalisations."""
    layer = name.rpartition(".")[0].rpartition(".")[2]
    return CROSS_ATTENTION not in name and "norm" not in layer


SCOPES: dict[str, Callable[[str], bool]] = {
    XATTN: lambda name: CROSS_ATTENTION in name,
    NOXATTN: _noxattn,
    NOXATTN_2025: _noxattn_2025,
    FULL: lambda name: True,
    LORA: lambda name: LORA_WEIGHT.fullmatch(name) is not None,
}
"""Scope -> a test whether it contains the parameter of a given name. With ``lora``, these weights
stay unchanged and low-rank layers beside them are trained. For ESD-u, ESD's first code trains
``noxattn``, its code since April 2025 ``noxattn-2025``."""


def in_scope(names: Sequence[str], scope: str) -> list[str]:
    """The names in the scope, in their given order."""
    return [name for name in names if SCOPES[scope](name)]


def text_projections(names: Sequence[str]) -> list[str]:
    """The key and value weights of every cross-attention layer, in their given order."""
    return [name for name in names if name.endswith(KEYS_AND_VALUES)]
