"""The complete state of a run after a step, from which another process continues it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .results import StepReport

Part = TypeVar("Part")
PART = 2**24  # elements that are checked or copied at once, because the device may be almost full


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a run. What follows from the inputs alone is not part of it.

    The methods check everything that they return, because a snapshot may come from a file.

    Attributes:
        tensors: by name. Those of a running run are its own, so they are valid until its next step.
        values: everything else, as JSON.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return len(self.values["reports"])

    @property
    def is_finite(self) -> bool:
        """Whether all tensors and losses are finite; otherwise the state is of no use."""
        finite = all(map(_is_finite, self.tensors.values()))
        return finite and all(map(_has_finite_values, self.values["reports"]))

    def list_of(
        self, name: str, examples: Sequence[Tensor], dtype: torch.dtype | None = None
    ) -> list[Tensor]:
        """The tensors ``name.0``, ``name.1``, ...; empty if there are none.

        Args:
            examples: tensors of the same shapes and dtypes.
            dtype: instead of those of the examples.

        Raises:
            ValueError: a tensor is missing, or is not like its example.
        """
        if f"{name}.0" not in self.tensors:
            return []
        return [
            self._tensor(f"{name}.{i}", example.shape, dtype or example.dtype)
            for i, example in enumerate(examples)
        ]

    def _tensor(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ValueError(f"tensor {name!r} is missing")
        if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
            raise ValueError(
                f"tensor {name!r} must be {dtype} {list(shape)}, got {tensor.dtype} "
                f"{list(tensor.shape)}"
            )
        if not _is_finite(tensor):
            raise ValueError(f"tensor {name!r} is not finite")
        return tensor

    def generator(self, name: str) -> Tensor:
        """The state of a generator.

        Raises:
            ValueError: it is missing or invalid.
        """
        generator = torch.Generator()
        example = generator.get_state()
        state = self._tensor(name, example.shape, example.dtype)
        try:
            generator.set_state(state)
        except RuntimeError as error:
            raise ValueError(f"tensor {name!r} is no state of a generator ({error})") from None
        return state.clone()

    def count(self, name: str) -> int:
        """A whole number, 0 or more.

        Raises:
            ValueError: it is missing, or something else.
        """
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must be a whole number, 0 or more, got {value!r:.80}")
        return value

    def part(self, name: str, kind: type[Part]) -> Part:
        """A dataclass from the value of this name.

        Raises:
            ValueError: it is missing, or a field has another type.
        """
        return _from_json(name, kind, self.values.get(name))

    def parts(self, name: str, kind: type[Part]) -> list[Part]:
        """Several of them from a list.

        Raises:
            ValueError: see ``part``.
        """
        values = self.values.get(name)
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list, got {values!r:.80}")
        return [_from_json(f"{name}[{i}]", kind, value) for i, value in enumerate(values)]

    def reports(self, most: int) -> list[StepReport]:
        """The reports of the finished steps.

        Raises:
            ValueError: they are malformed, not consecutive, or more than ``most``.
        """
        reports = self.parts("reports", StepReport)
        if [r.step for r in reports] != list(range(1, len(reports) + 1)) or len(reports) > most:
            raise ValueError(f"reports must be of steps 1 to {most} at most, without gaps")
        return reports


def listed(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors for ``Snapshot.list_of``, by name."""
    return {f"{name}.{i}": tensor.detach() for i, tensor in enumerate(tensors)}


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    parts = tensor.reshape(-1).split(PART)
    return all(bool(torch.isfinite(part).all()) for part in parts)


def _has_finite_values(report: Mapping[str, Any]) -> bool:
    return all(math.isfinite(value) for value in report.values())


def _from_json(where: str, kind: type[Part], values: object) -> Part:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be an object, got {values!r:.80}")
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in types or not _fits(value, types[name]):
            raise ValueError(f"{where}.{name!s:.80} must not be {value!r:.80}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where} is incomplete ({error})") from None


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON has this type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is not None and issubclass(origin, Mapping):
        key, content = arguments
        return isinstance(value, dict) and all(
            _fits(k, key) and _fits(v, content) for k, v in value.items()
        )
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, hint)
