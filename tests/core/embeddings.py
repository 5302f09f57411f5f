"""The contents of an encoded prompt in the core's families."""

from __future__ import annotations

from unlearn_core.models.protocol import Conditioning, Embeddings


def embeddings(conditioning: Conditioning | None) -> Embeddings:
    """Other families of conditionings are opaque."""
    assert isinstance(conditioning, Embeddings)
    return conditioning
