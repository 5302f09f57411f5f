"""Scopes: named groups of layers of a diffusers denoiser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

AUTO, XATTN, NOXATTN, NOXATTN_2025, FULL = "auto", "xattn", "noxattn", "noxattn-2025", "full"
TEXT_PATH, ATTENTION, LORA = "text path", "attention", "lora"
LORA_XATTN, LORA_TEXT_PATH = "lora, cross-attention", "lora, text path"
LORA_ATTENTION = "lora, attention"
LORA_SELF_ATTENTION = "lora, self-attention"  # of DUO; forms do not offer it

LOW_RANK = (LORA, LORA_XATTN, LORA_TEXT_PATH, LORA_ATTENTION, LORA_SELF_ATTENTION)
"""The weights in these scopes stay unchanged; low-rank layers beside them are trained."""
LOW_RANK_OF = MappingProxyType(
    {
        XATTN: LORA_XATTN,
        NOXATTN: LORA,
        NOXATTN_2025: LORA,
        FULL: LORA,
        TEXT_PATH: LORA_TEXT_PATH,
        ATTENTION: LORA_ATTENTION,
    }
)
"""Scope -> the low-rank scope that covers its layers, whose gradients and optimizer need next to no
memory. A low-rank scope has no smaller one: only its pictures need memory."""
SCOPES = (AUTO, XATTN, NOXATTN, NOXATTN_2025, FULL, TEXT_PATH, ATTENTION, *LOW_RANK)

Group = Callable[[str], bool]
"""Whether a parameter of this name belongs to the group."""
Groups = Mapping[str, Group]
"""Scope -> its parameters; a scope that the architecture does not have is absent."""

# Linear layers and convolutions that kohya's LoRA trainer adapts in a U-Net: those in the
# transformer blocks, and the projections into and out of them.
UNET_LORA = re.compile(
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)\.weight"
)
# Names in diffusers: ``attn2`` is cross-attention, ``attn1`` self-attention; the others are the
# timestep embedding and the last layers.
CROSS_ATTENTION, SELF_ATTENTION = ".attn2.", ".attn1."
EITHER_ATTENTION = (SELF_ATTENTION, CROSS_ATTENTION)
TIME_AND_OUT = ("time_embedding.", "conv_norm_out.", "conv_out.")
KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")

# Transformers in which text and picture tokens attend to each other. These weights are used for
# text tokens only.
TEXT_ONLY = re.compile(
    r"context_embedder\.|time_text_embed\.text_embedder\."
    r"|.*\.(attn\.(add_[qkv]_proj|to_add_out|norm_added_[qkv])|norm\d_context|ff_context)\."
)
JOINT_ATTENTION = re.compile(r".*\.attn2?\.")
JOINT_LORA = re.compile(
    r"(single_)?transformer_blocks\.\d+\.(attn2?\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)\.weight"
)
JOINT_TEXT_INPUT = re.compile(
    r"(context_embedder|time_text_embed\.text_embedder\.linear_\d)\.weight"
)


def _noxattn(name: str) -> bool:
    return CROSS_ATTENTION not in name and not name.startswith(TIME_AND_OUT)


def _noxattn_2025(name: str) -> bool:
    """Linear layers and convolutions; all other layers are normalisations."""
    layer = name.rpartition(".")[0].rpartition(".")[2]
    return CROSS_ATTENTION not in name and "norm" not in layer


def _attention(name: str) -> bool:
    return any(part in name for part in EITHER_ATTENTION)


def _unet_lora(name: str) -> bool:
    return UNET_LORA.fullmatch(name) is not None


def _joint_lora(name: str) -> bool:
    return JOINT_LORA.fullmatch(name) is not None


UNET: Groups = MappingProxyType(
    {
        XATTN: lambda name: CROSS_ATTENTION in name,
        NOXATTN: _noxattn,
        NOXATTN_2025: _noxattn_2025,
        FULL: lambda name: True,
        TEXT_PATH: lambda name: name.endswith(KEYS_AND_VALUES),
        ATTENTION: _attention,
        LORA: _unet_lora,
        LORA_XATTN: lambda name: _unet_lora(name) and CROSS_ATTENTION in name,
        LORA_TEXT_PATH: lambda name: name.endswith(KEYS_AND_VALUES),
        LORA_ATTENTION: lambda name: _unet_lora(name) and _attention(name),
        LORA_SELF_ATTENTION: lambda name: _unet_lora(name) and SELF_ATTENTION in name,
    }
)
"""For ESD-u, ESD's first code trains ``noxattn``, its code since April 2025 ``noxattn-2025``."""

JOINT: Groups = MappingProxyType(
    {
        FULL: lambda name: True,
        TEXT_PATH: lambda name: TEXT_ONLY.match(name) is not None,
        ATTENTION: lambda name: JOINT_ATTENTION.match(name) is not None,
        LORA: _joint_lora,
        LORA_TEXT_PATH: lambda name: (
            JOINT_TEXT_INPUT.fullmatch(name) is not None
            or (_joint_lora(name) and TEXT_ONLY.match(name) is not None)
        ),
        LORA_ATTENTION: lambda name: _joint_lora(name) and JOINT_ATTENTION.match(name) is not None,
    }
)
"""SD3 and Flux."""


def in_scope(names: Sequence[str], scope: str, groups: Groups) -> list[str]:
    """The names in the scope, in their given order; empty if the architecture lacks the scope."""
    group = groups.get(scope)
    return [] if group is None else [name for name in names if group(name)]


def keys_and_values(names: Sequence[str]) -> list[str]:
    """The key and value weights of every cross-attention layer of a U-Net, in their given order."""
    return [name for name in names if name.endswith(KEYS_AND_VALUES)]
