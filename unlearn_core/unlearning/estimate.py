"""Estimate of the memory that a run needs, and the choice of a plan that fits.

The sizes of weights, gradients and Adam's moments follow from the model. The size of the
activations depends on the architecture, the resolution and the kernels, so it is measured: with one
and with two pictures, from which it follows for any number.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..foundation.memory import free_unused, is_out_of_memory
from ..models.denoiser import FULL_SIZE
from ..models.protocol import Conditioning, ModelHandle
from .pieces import ON_CPU, ON_GPU
from .plan import Plan, gigabytes
from .scopes import trainable
from .settings import UnlearnSettings
from .watch import CHECK_ROWS

ERROR = 0.15  # of an estimate, relative; kept free for kernels' own memory and fragmentation
CURE = "choose a scope with 'lora' or smaller pictures (image_size)"
PIECES = 6  # that the optimizer needs at once: both gradients, their sum, and updates


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


@dataclass(frozen=True)
class Sizes:
    """The memory of a run by its parts, in bytes.

    Attributes:
        model: all weights of the loaded model on the device.
        trained: the trained copy of the weights, or the low-rank layers.
        optimizer: Adam's moments.
        gradient: one gradient of the trained weights.
        one, two: the profiles of a training step with one and with two pictures; ``two`` is None if
            two do not fit.
        smoothed: whether the retain gradient is smoothed, which needs a further copy.
        batches: whether the retain pictures of a step are more than one batch.
        good_state: the last good weights, which are in main memory; 0 on another device.
        pieces: intermediate results of the optimizer.
        check: the rows by which ``watch`` measures the damage.
    """

    model: int
    trained: int
    optimizer: int
    gradient: int
    one: Profile
    two: Profile | None
    smoothed: bool = False
    batches: bool = False
    good_state: int = 0
    pieces: int = 0
    check: int = 0

    def step(self, pictures: int, *, accumulates: bool = False) -> int:
        """Activations and the gradient in progress, for this number of pictures at once. In each
        section, the activations are a linear function of the number.

        Args:
            accumulates: add each gradient to an earlier one, which is not counted here.
        """
        more = self.two or self.one
        return max(
            one.peak
            + (pictures - 1) * (two.peak - one.peak)
            + (0 if accumulates else one.gradients)
            for one, two in zip(self.one, more, strict=True)
        )

    def parts(self, plan: Plan, batch_size: int) -> dict[str, int]:
        """Bytes of each part at the moment that needs most: in the retain gradient, when the forget
        gradient exists, and with several parts the sum of those before; or in the optimizer."""
        pictures = _pictures(plan, batch_size)
        accumulates = self.batches or pictures < batch_size
        before = 1 + accumulates + self.smoothed
        step = self.step(pictures, accumulates=accumulates)
        moments = (before, step), (2 + self.smoothed, self.pieces)
        gradients, step = max(moments, key=lambda each: each[0] * self.gradient + each[1])
        return {
            "model": self.model,
            "trained weights": self.trained,
            "optimizer": self.optimizer,
            "good state": self.good_state,
            "check": self.check,
            "gradients": gradients * self.gradient,
            "step": step,
        }

    def total(self, plan: Plan, batch_size: int) -> int:
        return sum(self.parts(plan, batch_size).values())


def sizes(
    base: ModelHandle, settings: UnlearnSettings, prompt: str, *, own_pictures: bool = False
) -> Sizes:
    """Measure the parts of a run's memory.

    Args:
        settings: without automatic values.
        prompt: any prompt that the model can encode.
        own_pictures: whether the retain set contains the user's own pictures.
    """
    model, parameters = trainable(
        base,
        settings.scope,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        seed=settings.seed,
    )
    row = base.encode_prompts([prompt]).to(base.device)
    one = profile(model, parameters, row)
    two = _profile_of_two(model, parameters, row)
    trained = _bytes(parameters)
    on_cpu = base.device.type == "cpu"
    piece = min(sum(p.numel() for p in parameters), ON_CPU if on_cpu else ON_GPU)
    loaded = [*base.own_tensors(), *(parameter for _, parameter in base.named_parameters())]
    return Sizes(
        model=_bytes(loaded),
        trained=trained,
        optimizer=2 * trained,
        gradient=trained,
        one=one,
        two=two,
        smoothed=settings.retain_ema > 0,
        batches=own_pictures or settings.retain_batch_factor != 1,
        good_state=trained if on_cpu else 0,
        pieces=PIECES * piece * torch.float32.itemsize,
        check=CHECK_ROWS * _check_row(base, row),
    )


def _check_row(base: ModelHandle, row: Conditioning) -> int:
    """Bytes of a row of ``watch``: three prompts, their pictures, and noise for two of them."""
    picture = math.prod(base.latent_shape) * torch.float32.itemsize
    with LiveBytes() as live:
        prompt = row[[0]]
        size = live.now
        del prompt
    return 3 * size + 5 * picture


def _profile_of_two(
    model: ModelHandle, parameters: Sequence[Tensor], row: Conditioning
) -> Profile | None:
    try:
        return profile(model, parameters, row[[0, 0]])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_unused(model.device)  # only here, where nothing refers to the tensors any more
    return None


def plan_for(
    base: ModelHandle,
    settings: UnlearnSettings,
    prompt: str,
    free: int | None,
    *,
    own_pictures: bool = False,
) -> Plan:
    """The plan of a run, see ``choose``. Small models always have enough memory for whole batches.

    Args:
        settings: without automatic values.
        prompt: any prompt that the model can encode.
        free: bytes of the device that nothing uses; None if unknown.
        own_pictures: whether the retain set contains the user's own pictures.

    Raises:
        ValueError: not even one picture at a time fits.
    """
    if sum(parameter.numel() for _, parameter in base.named_parameters()) < FULL_SIZE:
        return Plan()
    try:
        measured = sizes(base, settings, prompt, own_pictures=own_pictures)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"scope {settings.scope!r} needs more memory than there is, even with 1 picture at a "
            f"time; {CURE}"
        ) from error
    return choose(measured, settings, free, is_exact=base.device.type == "cuda")


def choose(
    sizes: Sizes, settings: UnlearnSettings, free: int | None, *, is_exact: bool = True
) -> Plan:
    """The plan with the largest parts of a batch that fits.

    Args:
        free: bytes of the device that nothing uses, with the model loaded; None if unknown.
        is_exact: whether ``free`` is a limit. The main memory is none: it can be swapped.

    Raises:
        ValueError: not even one picture at a time fits.
    """
    batch_size = settings.batch_size
    available = None if free is None else free + sizes.model
    plans = [Plan(), *(Plan(size) for size in _halves(batch_size))]
    if sizes.two is None:
        plans = [plan for plan in plans if _pictures(plan, batch_size) == 1]
    plans = [
        replace(plan, needed_bytes=sizes.total(plan, batch_size), available_bytes=available)
        for plan in plans
    ]
    if available is None:
        return plans[0]
    for plan in plans:
        if sizes.total(plan, batch_size) * (1 + ERROR) <= available:
            return plan
    needed = sizes.total(plans[-1], batch_size)
    if is_exact and needed > available * (1 + ERROR):
        raise ValueError(
            f"scope {settings.scope!r} needs about {gigabytes(needed)} GB of memory even with 1 "
            f"picture at a time, and {gigabytes(available)} GB can be used; {CURE}"
        )
    return plans[-1]


def profile(
    model: ModelHandle, parameters: Sequence[Tensor], conditioning: Conditioning
) -> list[Section]:
    """Measure the bytes that a training step needs, with a random picture for each row."""
    generator = torch.Generator().manual_seed(0)  # the global one stays as it is
    count = len(conditioning)
    shape = (count, *model.latent_shape)
    latents, noise = (torch.randn(shape, generator=generator).to(model.device) for _ in range(2))
    t = model.times(torch.full((count,), 0.5)).to(model.device)
    sections: list[Section] = []
    before = 0  # bytes of gradients

    def end_section() -> None:
        sections.append(Section(live.restart() - before, before))

    def end_with(gradient: Tensor) -> None:
        nonlocal before
        end_section()
        before += gradient.nbytes

    with torch.enable_grad(), LiveBytes() as live:
        hooks = [parameter.register_hook(end_with) for parameter in parameters]
        try:
            loss = model.denoise_error(latents, conditioning, noise, t).sum()
            torch.autograd.grad(loss, list(parameters), materialize_grads=True)
        finally:
            for hook in hooks:
                hook.remove()
        end_section()
    return sections


class LiveBytes(TorchDispatchMode):
    """Measures the bytes of all tensors that are created within this context, as long as each
    exists. It works on every device.

    Attributes:
        now: the bytes in use.
        peak: the largest number of bytes in use since the last ``restart``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: dict[int, weakref.ref[Any]] = {}

    def restart(self) -> int:
        """Begin a new peak; returns the last one."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        before = {_key(tensor) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            key = _key(tensor)
            if key not in before and key not in self.storages:
                self._add(key, tensor.untyped_storage())
        return result

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


def _pictures(plan: Plan, batch_size: int) -> int:
    """Number of pictures at once."""
    return min(plan.micro_batch or batch_size, batch_size)


def _halves(batch_size: int) -> list[int]:
    """Half of the batch, a quarter, and so on to 1."""
    sizes = []
    while batch_size > 1:
        batch_size //= 2
        sizes.append(batch_size)
    return sizes


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
