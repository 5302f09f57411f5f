"""Checks of linked values. ComfyUI checks the types of links, but a workflow may contain a plain
value in the place of a link."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Clip(Protocol):
    """What the nodes need of ComfyUI's CLIP, which other node packs implement themselves."""

    def tokenize(self, text: str, *arguments: Any, **options: Any) -> Any: ...

    def load_model(self, *arguments: Any, **options: Any) -> Any: ...


@runtime_checkable
class Vae(Protocol):
    """What the nodes need of ComfyUI's VAE."""

    def encode(self, pixels: Any, *arguments: Any, **options: Any) -> Any: ...

    def decode(self, latents: Any, *arguments: Any, **options: Any) -> Any: ...


def require_link(name: str, value: object, kind: type, source: str) -> None:
    """Require a value of a link's type.

    Args:
        name: of the input.
        source: the nodes whose output belongs here.

    Raises:
        ValueError: names the input.
    """
    if not isinstance(value, kind):
        raise ValueError(
            f"{name} must be linked from {source}, got {value!r:.80}; link it and queue again"
        )
