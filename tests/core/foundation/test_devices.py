"""The choice of an accelerator; what torch reports is set, as the machine of a test has none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from unlearn_core.foundation.devices import best_device, in_float64
from unlearn_core.job.cli import create_parser


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ((), "cpu"),
        (("cuda",), "cuda"),
        (("mps",), "mps"),
        (("xpu",), "xpu"),
        (("cuda", "xpu"), "cuda"),
    ],
)
def test_the_command_line_picks_the_accelerator_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, available: Sequence[str], expected: str
) -> None:
    for name, backend in (
        ("cuda", torch.cuda),
        ("mps", torch.backends.mps),
        ("xpu", torch.xpu),
    ):
        monkeypatch.setattr(backend, "is_available", lambda name=name: name in available)
    assert best_device() == expected
    assert create_parser().parse_args(["run", "settings.json"]).device == expected
    explicit = create_parser().parse_args(["run", "settings.json", "--device", "cpu"])
    assert explicit.device == "cpu"


def test_double_precision_is_on_the_cpu() -> None:
    tensor = in_float64(torch.ones(2, dtype=torch.float16))
    assert (tensor.dtype, tensor.device.type) == (torch.float64, "cpu")
