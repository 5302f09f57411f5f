"""A pretended accelerator: its tensors refuse to meet the CPU's, as a GPU's do, and are worked out
on the CPU. So a machine without a GPU finds what would break on one.

python pretended_accelerator.py JOBS.json   a list of command lines of ``unlearn_core``, each run in
    turn; those with ``--device pretended`` on the pretended device. A process of its own: torch
    takes one such device in a process, and keeps it.
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
TAKE_CPU_INDICES = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device's module; it draws no numbers of its own."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)


class Pretended(Tensor):
    """A tensor on a device of this kind, around the one of the CPU that holds its values."""

    raw: Tensor

    @staticmethod
    def __new__(cls: type[Pretended], raw: Tensor, index: int = 0) -> Pretended:
        make: Any = Tensor._make_wrapper_subclass
        made: Pretended = make(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, index),
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return work_out(func, args, kwargs or {})

    # What torch answers from the storage, which is the raw tensor's.
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
    """Catches what makes a tensor out of nothing, too."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        return work_out(func, args, kwargs or {})


def work_out(func: Any, args: Any, kwargs: dict[str, Any]) -> object:
    """Run an operator on the raw tensors, if a GPU would run it on these.

    Raises:
        RuntimeError: tensors of several devices, or a generator of the CPU.
    """
    if func is aten._has_compatible_shallow_copy_type.default:  # ``Module.to``, in inference mode
        return isinstance(args[0], Pretended) == isinstance(args[1], Pretended)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    inside = [x for x in tensors if isinstance(x, Pretended)]
    outside = [x for x in tensors if not isinstance(x, Pretended)]
    if inside and outside and not may_meet(func, args, outside):
        shapes = [(type(x).__name__, *x.shape) for x in tensors]
        raise RuntimeError(f"{func}: tensors of the device and of the CPU: {shapes}")
    indices = {x.device.index for x in inside}
    if len(indices) > 1 and func not in CROSSES:
        raise RuntimeError(f"{func}: tensors of the devices {sorted(indices)}")
    asked = kwargs.get("device")
    on_device = bool(inside) if asked is None else torch.device(asked).type == NAME
    index = torch.device(asked).index if asked is not None else next(iter(indices), 0)
    if on_device and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU draws on the device")

    raw_args, raw_kwargs = tree_map(as_raw, (args, kwargs))
    if asked is not None:
        raw_kwargs["device"] = torch.device("cpu")
    result = func(*raw_args, **raw_kwargs)
    if func is aten.copy_.default:
        return args[0]
    known = {id(x.raw): x for x in inside}  # an operator in place gives back what it was given

    def dressed(x: object) -> object:
        if not on_device or not isinstance(x, Tensor):
            return x
        return known.get(id(x), Pretended(x, index or 0))

    return tree_map(dressed, result)


def as_raw(x: object) -> object:
    return x.raw if isinstance(x, Pretended) else x


def may_meet(func: Any, args: Any, outside: list[Tensor]) -> bool:
    """What CUDA allows: copies, single numbers in pointwise operators, indices from the CPU."""
    if func in CROSSES:
        return True
    if func in TAKE_CPU_INDICES:
        return isinstance(args[0], Pretended)
    return torch.Tag.pointwise in func.tags and all(x.ndim == 0 for x in outside)


def empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: object) -> Tensor:
    order = memory_format or torch.contiguous_format
    return Pretended(torch.empty(size, dtype=dtype, memory_format=order))


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: object) -> Tensor:
    return Pretended(torch.empty_strided(size, stride, dtype=dtype))


def copy_from(source: Tensor, destination: Tensor, non_blocking: bool = False) -> Tensor:
    work_out(aten.copy_.default, (destination, source), {})
    return destination


def cast_first(operator: Any, dtype: torch.dtype) -> Callable[..., object]:
    """An operator as autocast runs it."""
    here = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))

    def cast(x: object) -> object:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    def run(*args: Any, **kwargs: Any) -> object:
        with torch._C._ExcludeDispatchKeyGuard(here):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run


def register() -> list[torch.library.Library]:
    """Make the device known to torch, for as long as the result lives."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
    library = torch.library.Library("aten", "IMPL")
    # Made from inside torch, where no mode looks.
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

    kept = register()
    torch.set_num_threads(1)
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        watched = Pretending() if f"--device={NAME}" in arguments else nullcontext()
        with watched:
            status = command_line(arguments)
        if status:
            return status
    del kept
    return 0


if __name__ == "__main__":
    sys.exit(main())
