"""NaN and infinity are found in every kind of tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn_core.foundation.finite import non_finite
from unlearn_core.foundation.safetensors_file import non_finite_in

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e4m3fn])
@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_single_nan_is_found(dtype: torch.dtype, place: int) -> None:
    tensor = torch.ones(3, 4)
    tensor.view(-1)[place] = float("nan")
    assert non_finite([("good", torch.ones(2)), ("bad", tensor.to(dtype))]) == "NaN in tensor 'bad'"
    assert non_finite([("good", torch.ones(3, 4).to(dtype))]) == ""


@pytest.mark.parametrize("dtype", FLOATS)  # float8_e4m3fn has no infinity
@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_a_single_infinity_is_found(dtype: torch.dtype, value: float) -> None:
    tensor = torch.zeros(7)
    tensor[3] = value
    assert non_finite([("bad", tensor.to(dtype))]) == "infinity in tensor 'bad'"


def test_tensors_without_floats_are_finite() -> None:
    tensors = [torch.zeros(0), torch.arange(3), torch.tensor([True]), torch.tensor(2.0)]
    assert non_finite([("any", tensor) for tensor in tensors]) == ""


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, file)
    assert non_finite_in(file) == "NaN in tensor 'b'"
    save_file({"a": torch.ones(2)}, file)
    assert non_finite_in(file) == ""
