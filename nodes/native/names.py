"""diffusers' names of the layers of ComfyUI's networks, which often fuse several into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.utils
from comfy.model_base import BaseModel


@dataclass(frozen=True)
class Part:
    """A layer of diffusers that is a part of a layer of ComfyUI's.

    Attributes:
        start, length: its rows of the weight.
    """

    name: str
    start: int
    length: int


# By the name of the class in ``comfy.model_base``: older versions lack some.
_MAPS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "SD3": comfy.utils.mmdit_to_diffusers,
    "Flux": comfy.utils.flux_to_diffusers,
    "AuraFlow": comfy.utils.auraflow_to_diffusers,
    "PixArt": comfy.utils.pixart_to_diffusers,
    "Lumina2": comfy.utils.z_image_to_diffusers,
}
_SAME = ("QwenImage", "HiDream")


def unet_names(model: BaseModel) -> dict[str, str]:
    """ComfyUI's module name -> diffusers' name in a U-Net; empty for other architectures."""
    names = comfy.utils.unet_to_diffusers(model.model_config.unet_config)
    return {
        name.removesuffix(".weight"): theirs.removesuffix(".weight")
        for theirs, name in names.items()
        if theirs.endswith(".weight")
    }


def diffusers_parts(model: BaseModel, module: str, rows: int) -> list[Part]:
    """The layers of diffusers' transformer that a layer of ``rows`` rows consists of; none if they
    are unknown."""
    kinds = [kind.__name__ for kind in type(model).__mro__]
    if any(kind in kinds for kind in _SAME):
        return [Part(module, 0, rows)]
    table = next((_MAPS[kind] for kind in kinds if kind in _MAPS), None)
    if table is None:
        return []
    parts = []
    for theirs, target in table(model.model_config.unet_config).items():
        name, rest = (target, ()) if isinstance(target, str) else (target[0], target[1:])
        if name == f"{module}.weight":
            _, start, length = (rest[0] if rest and rest[0] else None) or (0, 0, rows)
            parts.append(Part(theirs.removesuffix(".weight"), start, length))
    return _covering(parts, rows)


def _covering(parts: Sequence[Part], rows: int) -> list[Part]:
    """Parts that together are all rows, each once; newer ComfyUIs list Flux 1 and 2 in one table,
    with other parts of the same layers."""
    chosen: list[Part] = []
    for part in parts:
        end = part.start + part.length
        if all(end <= other.start or part.start >= other.start + other.length for other in chosen):
            chosen.append(part)
    if sum(part.length for part in chosen) == rows:
        return chosen
    return [part for part in parts if part.length == rows][:1]
