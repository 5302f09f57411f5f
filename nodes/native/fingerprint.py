"""A hash of a MODEL and its CLIP, quick also for models of many gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from .network import Network
from .sampling import has_own_guidance

SAMPLE = 2**16  # elements of each tensor


def fingerprint(network: Network, clip: Any) -> str:
    """SHA-256, hex, over names, shapes, dtypes and an even sample of every weight. Patches such as
    LoRAs count, and so do the noise schedule, the sampler, and the CLIP with its number of layers.

    ``network`` must be loaded.
    """
    digest = hashlib.sha256()
    for part in _tensors("model", network.model.state_dict()):
        digest.update(part)
    patcher = clip.load_model()
    for part in _tensors("clip", patcher.model.state_dict()):
        digest.update(part)
    options = sorted(getattr(clip, "tokenizer_options", {}).items())
    drawing = (network.family.sampler, network.family.scheduler)
    digest.update(repr((getattr(clip, "layer_idx", None), options, drawing)).encode())
    if has_own_guidance(network):  # functions cannot be compared, so nothing cached is reused
        digest.update(uuid4().bytes)
    return digest.hexdigest()


def _tensors(kind: str, state: Mapping[str, Any]) -> Iterator[bytes]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            plain = getattr(value, "_qdata", value)  # the numbers of a quantized tensor
            yield f"{kind}.{name} {plain.dtype} {tuple(plain.shape)}".encode()
            yield _sample(plain)


@torch.no_grad()
def _sample(tensor: Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    flat = tensor.detach().reshape(-1)
    chosen = flat[:: -(-len(flat) // SAMPLE)].cpu().contiguous()
    return chosen.view(torch.uint8).numpy().tobytes()
