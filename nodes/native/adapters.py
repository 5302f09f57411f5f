"""The trained layers: low-rank changes beside the weights of a network, or replaced weights.

They are separate from the network, which other MODELs share, and act through ``hooks``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...unlearn_core.models.protocol import LoraLayer
from ...unlearn_core.models.weights import ADAPTER, initial_down

Forward = Callable[..., Any]


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of any of ComfyUI's classes, or a convolution of size 1 that
    acts like one. ComfyUI's quantized linear layer is no subclass of torch's."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return False
    if isinstance(module, nn.Conv2d):
        return weight.shape[2:] == (1, 1) and module.stride == (1, 1) and module.groups == 1
    named = isinstance(module, nn.Linear) or type(module).__name__ == "Linear"
    return named and weight.ndim == 2


class Layer(nn.Module, ABC):
    """A trained change of one linear layer."""

    @abstractmethod
    def around(self, forward: Forward, module: nn.Module) -> Forward:
        """The ``forward`` of ``module`` with the change. It calculates in the dtype of the input,
        as ComfyUI's layers do."""

    @abstractmethod
    def delta(self, weight: Tensor) -> Tensor:
        """The change of ``weight``, the module's own, in fp32."""

    @abstractmethod
    def scaled(self, strength: float, weight: Tensor) -> Layer:
        """A layer with ``strength`` times the change; ``weight`` as in ``delta``."""

    def has_effect(self, weight: Callable[[], Tensor]) -> bool:
        """Whether it changes the weight, which ``weight`` computes."""
        return bool(self.delta(weight()).any())


class Whole(Layer):
    """Another weight in place of the module's own, in fp32; initially the same."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def around(self, forward: Forward, module: nn.Module) -> Forward:
        def run(x: Tensor) -> Tensor:
            bias = module.bias
            own = bias.to(x.device, x.dtype) if isinstance(bias, Tensor) else None
            return functional.linear(x, self.weight.to(x.dtype), own)

        return run

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        return self.weight - weight.float()

    @torch.no_grad()
    def scaled(self, strength: float, weight: Tensor) -> Whole:
        return Whole(weight.float().lerp(self.weight, strength))


class LowRank(Layer):
    """``alpha / r * up @ down`` beside a linear layer, in fp32; initially without effect."""

    def __init__(self, down: Tensor, out_features: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        ones = [1] * (down.ndim - 2)
        self.up = nn.Parameter(down.new_zeros(out_features, len(down), *ones))
        self.alpha = alpha

    @property
    def scale(self) -> float:
        return self.alpha / len(self.down)

    def around(self, forward: Forward, module: nn.Module) -> Forward:
        def run(x: Tensor) -> Tensor:
            down, up = self.down.to(x.dtype), self.up.to(x.dtype)
            apply = functional.conv2d if down.ndim == 4 else functional.linear
            change = apply(apply(x, down), up) * self.scale
            y = forward(x)
            return y + change.to(y.dtype)

        return run

    def has_effect(self, weight: Callable[[], Tensor]) -> bool:
        return bool(self.up.any())

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        product = self.up.flatten(1) @ self.down.flatten(1) * self.scale
        return product.view(len(self.up), *self.down.shape[1:])

    @torch.no_grad()
    def scaled(self, strength: float, weight: Tensor) -> LowRank:
        layer = LowRank(self.down.detach(), len(self.up), self.alpha)
        layer.up.copy_(self.up * strength)
        return layer


class Adapters:
    """The trained layers of one handle, by the name of the module that each changes.

    Attributes:
        fixed: layers of earlier training, which are applied first.
    """

    def __init__(
        self, layers: Mapping[str, Layer], fixed: Sequence[Mapping[str, Layer]] = ()
    ) -> None:
        self.layers, self.fixed = dict(layers), tuple(map(dict, fixed))

    def __bool__(self) -> bool:
        return bool(self.layers)

    def all(self) -> Iterator[tuple[str, Layer]]:
        """In the order in which they are applied."""
        for layers in (*self.fixed, self.layers):
            yield from layers.items()

    def as_fixed(self) -> Adapters:
        """Copies of all layers, fixed. Copies, because ComfyUI moves the tensors of each handle
        on their own."""
        return Adapters({}, [copy.deepcopy(layers) for layers in (*self.fixed, self.layers)])

    @property
    def low_rank(self) -> dict[str, LowRank]:
        return {n: layer for n, layer in self.layers.items() if isinstance(layer, LowRank)}

    @property
    def whole(self) -> dict[str, Whole]:
        return {n: layer for n, layer in self.layers.items() if isinstance(layer, Whole)}

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, layer in self.all() for parameter in layer.parameters()]

    def named_with(self, network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of a network with the changes, named as in the core's handles."""
        replaced = {f"{name}.weight": layer.weight for name, layer in self.whole.items()}
        for name, parameter in network.named_parameters():
            yield name, replaced.get(name, parameter)
        for name, layer in self.low_rank.items():
            yield f"{name}.lora_A.{ADAPTER}.weight", layer.down
            yield f"{name}.lora_B.{ADAPTER}.weight", layer.up

    def lora_layers(self) -> dict[str, LoraLayer]:
        return {
            name: LoraLayer(layer.down.detach(), layer.up.detach(), layer.alpha)
            for name, layer in self.low_rank.items()
        }


def low_rank_adapters(
    modules: Mapping[str, nn.Module],
    names: Sequence[str],
    rank: int,
    alpha: float,
    seed: int,
    device: torch.device,
    canonical: Callable[[str], str],
) -> Adapters:
    """Layers without effect beside the named modules.

    Args:
        canonical: the name on which a layer's initial values depend.
    """
    layers: dict[str, Layer] = {}
    for name in names:
        weight = modules[name].weight
        assert isinstance(weight, Tensor)
        down = initial_down(canonical(name), (rank, *weight.shape[1:]), seed)
        layers[name] = LowRank(down.to(device), weight.shape[0], alpha)
    return Adapters(layers)
