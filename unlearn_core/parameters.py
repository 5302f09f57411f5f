"""Trainable scopes: a name becomes the ordered list of parameters that unlearning may change."""

from __future__ import annotations

from collections.abc import Callable

from .models.protocol import ModelHandle

SCOPES: dict[str, Callable[[str], bool]] = {
    "full": lambda name: True,
    "xattn": lambda name: ".attn2." in name,
}
"""Scope -> whether it holds the parameter of that name; ``attn2`` is diffusers' cross-attention."""


def parameter_names(model: ModelHandle, scope: str) -> list[str]:
    """Names of the parameters in ``scope``, in the model's own order.

    Raises:
        ValueError: for an unknown scope, or one that is empty in this model.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    names = [name for name, _ in model.named_parameters() if SCOPES[scope](name)]
    if not names:
        raise ValueError(
            f"scope {scope!r} holds no parameter of {model.info.name!r}: "
            f"a {model.info.family} model has none, choose 'full'"
        )
    return names
