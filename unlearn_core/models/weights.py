"""Trainable copies of a denoiser that share its frozen tensors, and the tensors that differ."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import swap_tensors

from .errors import UnsupportedError
from .protocol import LoraLayer

ADAPTER = "unlearn"


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """All parameters and buffers, each once."""
    by_id = {id(t): t for part in modules for t in (*part.parameters(), *part.buffers())}
    return list(by_id.values())


@torch.inference_mode(False)
@torch.no_grad()
def move(tensors: Iterable[Tensor], device: torch.device) -> None:
    """Move tensors in place, so that modules still share them; ``Module.to`` would create separate
    buffers. Runs outside inference mode, because tensors created in it cannot be trained."""
    for tensor in tensors:
        moved = tensor.data.to(device)
        if torch._has_compatible_shallow_copy_type(tensor, moved):
            tensor.data = moved
        else:  # as between the CPU and NPUs, where ``Module.to`` creates new parameters
            parameter = isinstance(tensor, nn.Parameter)
            swap_tensors(tensor, nn.Parameter(moved, tensor.requires_grad) if parameter else moved)


def copy_with_trainable(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of ``module`` that owns the named parameters, in fp32, and shares every other tensor.

    Raises:
        ValueError: no parameter has one of the names.
    """
    owned = set(names)
    unknown = owned - {name for name, _ in module.named_parameters()}
    if unknown:
        raise ValueError(f"names: no parameter is called {sorted(unknown)[0]!r}")
    shared = [p for name, p in module.named_parameters() if name not in owned]
    shared += list(module.buffers())
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
    for name, parameter in copied.named_parameters():
        if name in owned:
            parameter.data = parameter.data.float()  # 16 bits would round small steps away
            parameter.requires_grad_(True)
    return copied


def vectors_to_fp32(module: nn.Module) -> None:
    """Convert biases and the weights of normalizations to fp32, in place: with these in 16 bits,
    normalization kernels refuse other 16-bit inputs. They need hardly any memory."""
    for parameter in module.parameters():
        if parameter.ndim < 2:
            parameter.data = parameter.data.float()


def copy_with_lora(
    module: nn.Module, names: Sequence[str], rank: int, alpha: float, seed: int
) -> nn.Module:
    """A copy that shares every tensor, with trainable low-rank layers beside the named weights.

    Raises:
        UnsupportedError: peft is not installed.
        ValueError: the model already has such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UnsupportedError("scope 'lora' needs the package peft: pip install peft") from error

    if any(lora_modules(module)):
        raise ValueError("scope 'lora': the model already has LoRA layers; save and load it first")
    targets = [name.removesuffix(".weight") for name in names]
    copied = copy_with_trainable(module, ())
    config: Any = LoraConfig(r=rank, target_modules=targets)
    config.lora_alpha = alpha  # typed as int, but any float works
    with fork_rng(next(module.parameters()).device):
        inject_adapter_in_model(config, copied, adapter_name=ADAPTER)
    for name, part in lora_modules(copied):
        down = part.lora_A[ADAPTER].weight
        down.data = initial_down(name, down.shape, seed).to(down.device)
    for name, parameter in copied.named_parameters():
        if is_lora(name):
            parameter.data = parameter.data.float()
        else:
            parameter.requires_grad_(False)
    return copied


def initial_down(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The initial values of the factor ``down`` [r, in, ...] of a low-rank layer: uniform between
    ``+-1 / sqrt(in)``, as in peft. They depend only on the seed and on the layer's diffusers name,
    so that every implementation of a model starts from the same values on every device."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    bound = torch.Size(shape[1:]).numel() ** -0.5
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)


def fork_rng(device: torch.device) -> AbstractContextManager[None]:
    """A context that restores the global random generators on exit, including the device's."""
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)


def is_lora(name: str) -> bool:
    """Whether a parameter belongs to a LoRA layer."""
    return f".{ADAPTER}." in name


def lora_names(name: str) -> tuple[str, str]:
    """The parameters ``down`` and ``up`` of the LoRA layer beside the weight ``name``."""
    module = name.removesuffix(".weight")
    return f"{module}.lora_A.{ADAPTER}.weight", f"{module}.lora_B.{ADAPTER}.weight"


def lora_modules(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with LoRA, by name."""
    for name, part in module.named_modules():
        if hasattr(part, "lora_A") and ADAPTER in part.lora_A:  # type: ignore[operator]
            yield name, part


def lora_layers(module: nn.Module) -> dict[str, LoraLayer]:
    """The low-rank factors of every layer with LoRA; empty if there is none."""
    return {
        name: LoraLayer(
            down=part.lora_A[ADAPTER].weight.detach(),
            up=part.lora_B[ADAPTER].weight.detach(),
            alpha=float(part.lora_alpha[ADAPTER]),
        )
        for name, part in lora_modules(module)
    }


class LazyTensors(Mapping[str, Tensor]):
    """Tensors that are computed on access, one at a time; looking up names computes nothing."""

    def __init__(self, functions: Mapping[str, Callable[[], Tensor]]) -> None:
        self._functions = functions

    def __getitem__(self, name: str) -> Tensor:
        return self._functions[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._functions  # Mapping's default would compute the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


def changed_tensors(module: nn.Module, base: nn.Module) -> Mapping[str, Tensor]:
    """Tensors of ``module`` with other values than in ``base``, by their names there.

    LoRA layers are merged into their weights on access, one at a time: together the merged weights
    could be as large as the model.
    """
    before = base.state_dict()
    functions: dict[str, Callable[[], Tensor]] = {}
    for name, part in lora_modules(module):
        if part.lora_B[ADAPTER].weight.any():
            functions[f"{name}.weight"] = lambda part=part: _merged(part)
    for name, tensor in module.state_dict().items():
        name = name.replace(".base_layer.", ".")
        if is_lora(name) or name in functions or tensor.data_ptr() == before[name].data_ptr():
            continue
        if not torch.equal(tensor, before[name].to(tensor.dtype)):
            functions[name] = lambda tensor=tensor: tensor
    return LazyTensors(functions)


@torch.no_grad()
def _merged(part: Any) -> Tensor:
    return part.base_layer.weight.float() + part.get_delta_weight(ADAPTER).float()
