"""A model with some of its tensors replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .protocol import ModelHandle

Handle = TypeVar("Handle", bound=ModelHandle)


def with_tensors(base: Handle, tensors: Mapping[str, Any]) -> Handle:
    """A new handle whose named tensors are replaced.

    Raises:
        ValueError: the model has no tensor of a given name or shape.
    """
    model = base.trainable_copy(list(tensors))
    for name, parameter in model.named_parameters():
        if name in tensors:
            value = tensors[name]
            if parameter.shape != value.shape:
                raise ValueError(f"tensor {name!r} does not fit {base.info.name!r}")
            parameter.requires_grad_(False).copy_(value)
    return model
