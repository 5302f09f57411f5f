"""A simulated accelerator. Like a GPU, it refuses to mix its tensors with the CPU's, and like an
Apple GPU, it refuses float64; but it computes on the CPU. So it reveals on a machine without a GPU
what would fail on one.

python pretended_accelerator.py JOBS.json   run a list of command lines of ``unlearn_core`` in
    turn, those with ``--device pretended`` on the simulated device. Use a separate process: torch
    accepts only one such device per process and cannot remove it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
KEY, AUTOCAST = "PrivateUse1", "AutocastPrivateUse1"
aten = torch.ops.aten
CROSSES = {aten.copy_.default, aten._to_copy.default}
ACCEPT_CPU_INDICES = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Backend(backend_registration._DummyBackendModule):
    """The interface that torch requires of a device's module; random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)


class Pretended(Tensor):
    """A tensor on the simulated device; ``raw`` is the CPU tensor with its values."""

    raw: Tensor
    has_float64 = False  # ComfyUI itself uses it on GPUs other than Apple's

    @staticmethod
    def __new__(cls: type[Pretended], raw: Tensor, index: int = 0) -> Pretended:
        if not cls.has_float64 and raw.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the device does not support {raw.dtype}, like an Apple GPU")
        wrap: Any = Tensor._make_wrapper_subclass
        tensor: Pretended = wrap(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, index),
        )
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return run_operator(func, args, kwargs or {})

    # Methods for which torch needs the storage, which belongs to the raw tensor.
    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.raw.untyped_storage()

    def tolist(self) -> Any:
        return self.raw.tolist()

    @property
    def data(self) -> Tensor:
        return Pretended(self.raw, self.device.index)

    @data.setter
    def data(self, value: Pretended) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.raw = value.raw


class Pretending(TorchDispatchMode):
    """Also catches operators that create tensors."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return run_operator(func, args, kwargs or {})


def run_operator(func: Any, args: Any, kwargs: dict[str, Any]) -> object:
    """Run an operator on the raw tensors if a GPU would accept the tensors.

    Raises:
        RuntimeError: tensors of several devices, or a CPU generator.
    """
    if func is aten._has_compatible_shallow_copy_type.default:  # ``Module.to``, in inference mode
        return isinstance(args[0], Pretended) == isinstance(args[1], Pretended)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    inside = [x for x in tensors if isinstance(x, Pretended)]
    outside = [x for x in tensors if not isinstance(x, Pretended)]
    if inside and outside and not may_mix(func, args, outside):
        shapes = [(type(x).__name__, *x.shape) for x in tensors]
        raise RuntimeError(f"{func}: tensors of the device and of the CPU: {shapes}")
    indices = {x.device.index for x in inside}
    if len(indices) > 1 and func not in CROSSES:
        raise RuntimeError(f"{func}: tensors of the devices {sorted(indices)}")
    device = kwargs.get("device")
    on_device = bool(inside) if device is None else torch.device(device).type == NAME
    index = torch.device(device).index if device is not None else next(iter(indices), 0)
    if on_device and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a CPU generator cannot draw on the device")

    raw_args, raw_kwargs = tree_map(as_raw, (args, kwargs))
    if device is not None:
        raw_kwargs["device"] = torch.device("cpu")
    result = func(*raw_args, **raw_kwargs)
    if func is aten.copy_.default:
        return args[0]
    known = {id(x.raw): x for x in inside}  # an in-place operator returns its argument

    def wrapped(x: object) -> object:
        if not on_device or not isinstance(x, Tensor):
            return x
        return known.get(id(x), Pretended(x, index or 0))

    return tree_map(wrapped, result)


def as_raw(x: object) -> object:
    return x.raw if isinstance(x, Pretended) else x


def may_mix(func: Any, args: Any, outside: list[Tensor]) -> bool:
    """Whether CUDA allows it: copies, scalars in pointwise operators, indices from the CPU."""
    if func in CROSSES:
        return True
    if func in ACCEPT_CPU_INDICES:
        return isinstance(args[0], Pretended)
    return torch.Tag.pointwise in func.tags and all(x.ndim == 0 for x in outside)


def empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: object) -> Tensor:
    order = memory_format or torch.contiguous_format
    return Pretended(torch.empty(size, dtype=dtype, memory_format=order))


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: object) -> Tensor:
    return Pretended(torch.empty_strided(size, stride, dtype=dtype))


def copy_from(source: Tensor, destination: Tensor, non_blocking: bool = False) -> Tensor:
    run_operator(aten.copy_.default, (destination, source), {})
    return destination


def cast_first(operator: Any, dtype: torch.dtype) -> Callable[..., object]:
    """An operator that casts its arguments first, as in autocast."""
    here = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))

    def cast(x: object) -> object:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    def run(*args: Any, **kwargs: Any) -> object:
        with torch._C._ExcludeDispatchKeyGuard(here):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run


def register() -> list[torch.library.Library]:
    """Register the device with torch, for the lifetime of the returned libraries."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
    library = torch.library.Library("aten", "IMPL")
    # torch calls these internally, where a dispatch mode has no effect.
    library.impl("empty.memory_format", empty, KEY)
    library.impl("empty_strided", empty_strided, KEY)
    library.impl("_copy_from", copy_from, KEY)
    everything = torch.library.Library("_", "IMPL", AUTOCAST)
    everything.fallback(torch.library.fallthrough_kernel)
    for name in ("linear", "matmul", "conv2d", "scaled_dot_product_attention"):
        library.impl(name, cast_first(getattr(aten, name).default, torch.bfloat16), AUTOCAST)
    for name in ("layer_norm", "group_norm"):
        library.impl(name, cast_first(getattr(aten, name).default, torch.float32), AUTOCAST)
    return [library, everything]


def main() -> int:
    from unlearn_core.job.cli import main as command_line

    libraries = register()
    torch.set_num_threads(1)
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        context = Pretending() if f"--device={NAME}" in arguments else nullcontext()
        with context:
            status = command_line(arguments)
        if status:
            return status
    del libraries
    return 0


if __name__ == "__main__":
    sys.exit(main())
