"""One step of unlearning in four ways, which the speed benchmark compares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu import training_sets
from unlearn_core.models.layers import FULL, LOW_RANK
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.models.weights import tensors_of
from unlearn_core.unlearning.batches import Batches
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import OBJECTIVES, RETAIN_OBJECTIVES
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings

OURS, BARE, PAPER, GRADDIFF = "ours", "bare", "paper", "GradDiff"
LOSSES = {
    "redirect": {"objective": "redirect", "retain_objective": "distill"},
    "ascent": {"objective": "ascent", "retain_objective": "denoise"},
}
"""The pack's default losses, with passes of the frozen model, and the paper's, without."""
LEARNING_RATE = 1e-6  # random weights would diverge with a usual one
RETAIN_WEIGHT = 1.5


class Way(ABC):
    """A way to take a step.

    Attributes:
        optimizer: AdamW over the trained parameters.
    """

    optimizer: Any

    @abstractmethod
    def step(self) -> None: ...

    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """The networks that this way keeps in memory."""
        ...

    def tensors(self) -> list[Tensor]:
        """The tensors that stay in memory between steps."""
        return tensors_of(self.networks()) + [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]


class Ours(Way):
    """The pack's own loop, with its default method."""

    def __init__(self, model: StableDiffusionHandle, settings: UnlearnSettings) -> None:
        self.model = model
        self.run = Unlearning(model, training_sets(model), settings)
        self.steps = iter(self.run)

    def step(self) -> None:
        next(self.steps)

    def networks(self) -> Sequence[nn.Module]:
        trained: Any = self.run.model
        return (*self.model.networks(), trained.denoiser)

    def tensors(self) -> list[Tensor]:
        optimizer = self.run.optimizer
        return [*tensors_of(self.networks()), optimizer.mean, optimizer.square]


class Bare(Way):
    """The passes of a step of ``ours`` alone, on the same inputs, and AdamW. It draws no batch,
    computes no loss of the method, and combines no gradients."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.parameters = ours, ours.run.parameters
        ours.step()  # the first one also measures the frozen model, for the alarms
        self.passes = record(ours)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, foreach=True)

    def step(self) -> None:
        for one in self.passes:
            with torch.set_grad_enabled(one.trains), self.ours.model.autocast():
                output = one.network(*one.arguments, **one.named).sample.float()
                if one.trains:
                    output.square().mean().backward(inputs=self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def networks(self) -> Sequence[nn.Module]:
        return self.ours.networks()


class GradDiff(Way):
    """Plain GradDiff (Liu et al. 2022) as in a textbook: the losses and batches of ``ours``, the
    sum of the gradients in ``.grad``, and AdamW."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.parameters = ours, ours.run.parameters
        self.batches = Batches(ours.model, ours.run.sets, ours.run.settings)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, foreach=True)

    def step(self) -> None:
        run, settings = self.ours.run, self.ours.run.settings
        batch = self.batches.forget()
        forget = OBJECTIVES[settings.objective](run.model, run.base, batch, settings.strengths)
        forget.mean().backward(inputs=self.parameters)
        for part in self.batches.retain(batch):
            retain = RETAIN_OBJECTIVES[settings.retain_objective](run.model, run.base, *part)
            (RETAIN_WEIGHT * retain.mean()).backward(inputs=self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def networks(self) -> Sequence[nn.Module]:
        return self.ours.networks()


class Paper(Way):
    """The way of the public implementation of Ko et al. (2024) for Stable Diffusion, rewritten.

    Each step encodes pictures and prompts, computes the gradients of the whole network for both
    losses, whatever the scope, joins each into one vector, projects the two vectors, and writes
    their sum back. Adam changes the weights of the scope. A LoRA, which it does not have, counts as
    the scope ``full``. Attention kernels and gradient checkpointing are those of ``ours``.
    """

    def __init__(self, model: StableDiffusionHandle, scope: str, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.trained = model.trainable_copy(parameter_names(model, FULL))
        self.network: nn.Module = self.trained.denoiser
        self.parameters = list(self.network.parameters())
        names = parameter_names(model, FULL if scope in LOW_RANK else scope)
        in_scope = [p for name, p in self.network.named_parameters() if name in set(names)]
        self.optimizer = torch.optim.Adam(in_scope, lr=LEARNING_RATE)

    def step(self) -> None:
        self.network.zero_grad()
        (-self._loss("a x")).backward()
        forget = self._gradients()
        self.network.zero_grad()
        self._loss("a y").backward()
        flat_forget = torch.cat([gradient.view(-1) for gradient in forget])
        flat_retain = torch.cat([gradient.view(-1) for gradient in self._gradients()])
        new_forget = _projected(flat_forget, flat_retain)
        new_retain = _projected(flat_retain, flat_forget)
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, f, r in zip(
            self.parameters, new_forget.split(sizes), new_retain.split(sizes), strict=True
        ):
            parameter.grad = (f + RETAIN_WEIGHT * r).view_as(parameter)
        self.optimizer.step()

    def _loss(self, prompt: str) -> Tensor:
        model, count = self.model, self.batch_size
        edge, device = model.info.image_size, model.device
        latents = model.encode_images(torch.rand(count, 3, edge, edge, device=device)).float()
        prompts = model.encode_prompts([prompt] * count)
        t = model.times(torch.rand(count)).to(device)
        noise = torch.randn_like(latents)
        return self.trained.denoise_error(latents, prompts, noise, t).mean()

    def _gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.parameters]

    def networks(self) -> Sequence[nn.Module]:
        _, *encoders = self.model.networks()
        return (self.network, *encoders)


@dataclass(frozen=True)
class Pass:
    """A call of a denoiser; ``trains`` if a backward pass follows."""

    network: nn.Module
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    trains: bool


def record(ours: Ours) -> list[Pass]:
    """The denoiser passes of one step, which is taken."""
    passes: list[Pass] = []

    def remember(network: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        passes.append(Pass(network, arguments, named, torch.is_grad_enabled()))

    trained: Any = ours.run.model
    hooks = [
        network.register_forward_pre_hook(remember, with_kwargs=True)
        for network in (trained.denoiser, ours.model.denoiser)
    ]
    ours.step()
    for hook in hooks:
        hook.remove()
    return passes


def settings(scope: str, losses: str, batch_size: int) -> UnlearnSettings:
    """Settings of ``ours`` for any number of steps."""
    plain = UnlearnSettings(
        scope=scope, batch_size=batch_size, steps=10_000, warm_start=False,
        learning_rate=LEARNING_RATE, retain_weight=RETAIN_WEIGHT,
    )  # fmt: skip
    return replace(plain, **LOSSES[losses])


def ways(
    model: StableDiffusionHandle, scope: str, losses: str, batch_size: int, *, paper: bool
) -> dict[str, Way]:
    """Every way by name; *paper* only on demand, because it needs much memory."""
    ours = Ours(model, settings(scope, losses, batch_size))
    found: dict[str, Way] = {OURS: ours, BARE: Bare(ours), GRADDIFF: GradDiff(ours)}
    return {**found, PAPER: Paper(model, scope, batch_size)} if paper else found


def _projected(gradient: Tensor, onto: Tensor) -> Tensor:
    """``gradient`` without the part along ``onto``, if the two conflict."""
    similarity = torch.dot(gradient, onto) / onto.norm() ** 2
    return gradient - similarity * onto if similarity.item() < 0 else gradient
