"""The memory of a training step, measured operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..dataset.settings import GenerationSettings
from ..foundation.progress import Progress
from ..models.denoiser import DenoiserHandle
from ..models.protocol import Conditioning, ModelHandle


@dataclass(frozen=True)
class Section:
    """The part of a training step between two gradients.

    Attributes:
        peak: the largest number of bytes in use, without the gradients computed before.
        gradients: bytes of the gradients computed before.
    """

    peak: int
    gradients: int = 0


Profile = Sequence[Section]
"""A training step, in the order in which it computes the gradients."""


def fake_mode(model: ModelHandle) -> FakeTensorMode | None:
    """A mode in which tensors have sizes but no values, so that measuring computes nothing.

    None on a GPU, where a step takes a moment, and its own kernels decide how much memory it needs.
    None also for other programs' networks, because some of them read values.
    """
    is_own = isinstance(model, DenoiserHandle)
    on_cpu = model.device.type == "cpu"
    return FakeTensorMode(allow_non_fake_inputs=True) if is_own and on_cpu else None


def profile(
    model: ModelHandle,
    parameters: Sequence[Tensor],
    conditioning: Conditioning,
    progress: Progress | None = None,
    fake: FakeTensorMode | None = None,
) -> list[Section]:
    """Measure the bytes that a training step needs, with a random picture for each row.

    Args:
        progress: checked after each gradient.
        fake: the mode in which to measure; None to compute the step.
    """
    progress = progress or Progress()
    sections: list[Section] = []
    before = 0  # bytes of gradients

    def end_section() -> None:
        sections.append(Section(live.restart() - before, before))
        progress.check()

    def end_with(gradient: Tensor) -> None:
        nonlocal before
        end_section()
        before += gradient.nbytes

    generator = torch.Generator().manual_seed(0)  # the global one stays as it is
    count = len(conditioning)
    shape = (count, *model.latent_shape)
    with fake or nullcontext():
        latents, noise = (
            torch.randn(shape, generator=generator).to(model.device) for _ in range(2)
        )
        t = model.times(torch.full((count,), 0.5)).to(model.device)
        with torch.enable_grad(), LiveBytes(fake) as live:
            hooks = [parameter.register_hook(end_with) for parameter in parameters]
            try:
                loss = model.denoise_error(latents, conditioning, noise, t).sum()
                torch.autograd.grad(loss, list(parameters), materialize_grads=True)
            finally:
                for hook in hooks:
                    hook.remove()
            end_section()
    return sections


@torch.no_grad()
def drawing_bytes(
    model: ModelHandle,
    conditioning: Conditioning,
    drawing: GenerationSettings,
    progress: Progress | None = None,
    fake: FakeTensorMode | None = None,
) -> int:
    """Measure the bytes that drawing pictures needs beside the weights: in a sampling step of a
    batch, or in decoding it.

    Args:
        conditioning: a row.
    """
    progress = progress or Progress()
    rows = drawing.batch_size * model.passes_per_step(drawing.guidance_scale)
    with fake or nullcontext(), LiveBytes(fake) as live:
        latents = torch.zeros(rows, *model.latent_shape).to(model.device)
        t = model.times(torch.full((rows,), 0.5)).to(model.device)
        model.predict(latents, conditioning[[0] * rows], t)
        progress.check()
        if model.can_decode:
            model.decode_latents(latents[: drawing.batch_size])
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Measures the bytes of all tensors that are created within this context, as long as each
    exists. It works on every device.

    Attributes:
        fake: the surrounding mode without values, if there is one.
        now: the bytes in use.
        peak: the largest number of bytes in use since the last ``restart``.
    """

    def __init__(self, fake: FakeTensorMode | None = None) -> None:
        super().__init__()
        self.fake = fake
        self.now = self.peak = 0
        self.storages: dict[int, weakref.ref[Any]] = {}

    def restart(self) -> int:
        """Begin a new peak; returns the last one."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        before = {self._key_before(tensor) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            key = _key(tensor)
            if key not in before and key not in self.storages:
                self._add(key, tensor.untyped_storage())
        return result

    def _key_before(self, tensor: Tensor) -> int:
        """The key of an operation's input. The fake mode replaces real weights by fake ones, of
        which the result may be a view."""
        if self.fake is not None and not isinstance(tensor, FakeTensor):
            return _key(self.fake.from_tensor(tensor))
        return _key(tensor)

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self.storages[key] = weakref.ref(storage, partial(self._removed, key, size))

    def _removed(self, key: int, size: int, _: object) -> None:
        del self.storages[key]
        self.now -= size


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
