"""Changes of the network while it computes: trained layers on, and what autograd needs.

ComfyUI's MODELs share one network. So nothing of it is changed for good: a module gets another
``forward`` while a prediction runs, and its own again afterwards, also after an error or Cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .adapters import Adapters, Forward

FULL_SIZE = 100_000_000  # parameters; smaller networks need no gradient checkpointing
EIGHT_BITS = 1  # bytes of an element of the quantized dtypes

Wrap = Callable[[Forward], Forward]


class _Replaced:
    """A ``forward`` from this module; recognised, so that none is replaced twice."""

    def __init__(self, function: Forward) -> None:
        self.function = function

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.function(*args, **named)


@contextmanager
def replaced(wraps: Mapping[nn.Module, Wrap]) -> Iterator[None]:
    """Context in which each module's ``forward`` is wrapped. Modules that already have another
    ``forward`` from here keep it."""
    previous: list[tuple[nn.Module, Forward | None]] = []
    try:
        for module, wrap in wraps.items():
            own = vars(module).get("forward")
            if not isinstance(own, _Replaced):
                previous.append((module, own))
                module.forward = _Replaced(wrap(module.forward))
        yield
    finally:
        for module, own in previous:
            if own is None:
                vars(module).pop("forward", None)
            else:
                module.forward = own


@contextmanager
def training_mode() -> Iterator[None]:
    """Context in which newer ComfyUIs avoid fused kernels, which have no backward pass. Some of
    their networks use such kernels even so; these are replaced by the same calculation in torch."""
    replacements: list[tuple[Any, str, object]] = [
        (module, name, function) for module, name, function in _with_backward()
    ]
    if hasattr(comfy.model_management, "in_training"):
        replacements.append((comfy.model_management, "in_training", True))
    previous = [(module, name, getattr(module, name)) for module, name, _ in replacements]
    try:
        for module, name, value in replacements:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in previous:
            setattr(module, name, value)


@cache
def _with_backward() -> tuple[tuple[Any, str, Forward], ...]:
    """Functions of ComfyUI's library of kernels, and their calculation in torch."""
    try:
        import comfy_kitchen as kernels  # pyright: ignore[reportMissingImports]
        from comfy_kitchen.backends.eager import rope as plain  # pyright: ignore[reportMissingImports]
    except ImportError:  # ComfyUI 0.3 has none
        return ()
    names = (name for name in vars(kernels) if "rope" in name and not name.endswith("_"))
    return tuple((kernels, name, getattr(plain, name)) for name in names if hasattr(plain, name))


def attention_with_backward(_: Forward, *args: Any, **named: Any) -> Tensor:
    """Torch's attention in place of the chosen one: SageAttention, for example, has no backward
    pass. Predictions without gradient use it too, or its rounding would be trained away."""
    return attention_pytorch(*args, **named)


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Context in which autograd works if it is on. ComfyUI's nodes run in inference mode; to leave
    this mode also switches gradients on, even within ``no_grad``."""
    is_enabled = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(is_enabled):
        yield


class Hooks:
    """The changes of one network with the trained layers of one handle."""

    def __init__(self, network: nn.Module, adapters: Adapters) -> None:
        modules = dict(network.named_modules())
        self.layers: dict[nn.Module, Wrap] = {}
        for module in modules.values():
            if _is_quantized(module):
                self.layers[module] = lambda forward, module=module: _dequantized(module)
        self.trained: dict[nn.Module, Wrap] = {}
        for name, layer in adapters.all():
            module = modules[name]
            wrap = partial(layer.around, module=module)
            for wraps in (self.trained, self.layers):
                wraps[module] = _both(wraps[module], wrap) if module in wraps else wrap
        self.autograd: dict[nn.Module, Wrap] = {
            module: _on_a_copy for module in modules.values() if _is_norm(module)
        }
        size = sum(parameter.numel() for parameter in network.parameters())
        wraps = {**self.layers, **self.autograd}
        for block in _blocks(network):
            inside = {part: wraps[part] for part in block.modules() if part in wraps}
            self.autograd[block] = lambda forward, inside=inside: _block(
                forward, inside, size >= FULL_SIZE
            )

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Context of a prediction, with gradient if autograd is on."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self.layers))
            if torch.is_grad_enabled():
                stack.enter_context(replaced(self.autograd))
                stack.enter_context(training_mode())
            yield

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Context of ComfyUI's sampler: the trained layers are on, all else is as always."""
        with replaced(self.trained):
            yield


def _both(inner: Wrap, outer: Wrap) -> Wrap:
    return lambda forward: outer(inner(forward))


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ and next(module.children(), None) is None


def _on_a_copy(forward: Forward) -> Forward:
    """Blocks of Flux, Chroma and Hunyuan add to their input in place, which a normalisation before
    has saved for its backward pass. Autograd would refuse, and with checkpointing it would silently
    use the changed values."""
    return lambda x, *rest, **named: forward(x.clone(), *rest, **named)


def _block(forward: Forward, inside: Mapping[nn.Module, Wrap], recompute: bool) -> Forward:
    """A block on copies of its inputs, which it may change in place.

    Args:
        recompute: recompute it in the backward pass (Chen et al. 2016). This may happen long after
            the prediction, so the block itself switches the changes on.
    """

    def run(*args: Any, **named: Any) -> Any:
        with replaced(inside), training_mode():
            return forward(
                *map(_copied, args), **{name: _copied(value) for name, value in named.items()}
            )

    if not recompute:
        return run
    return lambda *args, **named: checkpoint(
        run, *args, use_reentrant=False, preserve_rng_state=False, **named
    )


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a transformer, or the layers of a U-Net's blocks: their container's own
    ``forward`` is never called."""
    for part in network.children():
        for block in part if isinstance(part, nn.ModuleList) else [part]:
            if type(block).__name__ == "TimestepEmbedSequential":
                yield from block.children()
            elif isinstance(part, nn.ModuleList):
                yield block


def _is_quantized(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 2
        and weight.element_size() == EIGHT_BITS
        and not isinstance(module, nn.Embedding)
    )


def _dequantized(module: Any) -> Forward:
    """A linear layer with its weights in the dtype of the input: ComfyUI's fast multiplications of
    8-bit numbers have no backward pass. Predictions without gradient use it too, or the rounding
    of the fast ones would be trained away."""

    def run(x: Tensor) -> Tensor:
        weight = module.weight
        if hasattr(module, "convert_weight"):
            weight = module.convert_weight(weight)
        bias = None if module.bias is None else module.bias.to(x.device, x.dtype)
        return functional.linear(x, weight.to(x.device, x.dtype), bias)

    return run
