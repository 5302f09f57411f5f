"""A request to stop ends one long call of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearn_core.foundation.interruption import Interruptible

from ..watching import Recorder, StopError, Stopping


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(10)])


def gradients(layers: nn.Sequential) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(layers(torch.ones(2, 4)).sum(), list(layers.parameters()))


def test_every_module_is_a_place_to_stop() -> None:
    layers, progress = network(), Recorder()
    expected = gradients(layers)
    with Interruptible(progress).within():
        actual = gradients(layers)
    assert progress.checks >= 20
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    for at in range(1, progress.checks + 1):
        stopping = Stopping(at)
        with pytest.raises(StopError), Interruptible(stopping).within():
            gradients(layers)
        assert stopping.checks == at


def test_short_calls_are_not_slowed_down() -> None:
    layers, progress = network(), Recorder()
    interruptible = Interruptible(progress)
    before = progress.checks
    for _ in range(2):
        before = progress.checks
        with interruptible.within():
            layers(torch.ones(2, 4))
    assert progress.checks == before, "the first call was short"
    layers(torch.ones(2, 4))
    assert progress.checks == before
