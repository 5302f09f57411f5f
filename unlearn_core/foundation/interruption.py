"""Requests to stop that take effect within one long call of a network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .progress import Progress

SLOW = 0.5  # seconds; a shorter call needs no check within it


class Interruptible:
    """Checks a progress object before each module of a network, forwards and backwards.

    A batch of hundreds of pictures takes half a minute on a CPU, and the backward pass does not
    return to Python meanwhile. A check there lets Cancel and Ctrl+C end it. The checks cost a few
    microseconds per module, so they are only made if the last call of ``within`` was slow.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.is_slow = progress, True

    @contextmanager
    def within(self, units: int = 1) -> Iterator[None]:
        """Context of a long call.

        Args:
            units: number of parts of the call between which the progress is checked anyway.
        """
        started = time.perf_counter()
        handles = []
        if self.is_slow:
            handles = [
                nn.modules.module.register_module_forward_pre_hook(self._before),
                nn.modules.module.register_module_forward_hook(self._after),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self.is_slow = (time.perf_counter() - started) / units > SLOW

    def _before(self, module: nn.Module, arguments: object) -> None:
        self.progress.check()

    def _after(self, module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad and torch.is_grad_enabled():
            output.register_hook(self._backwards)

    def _backwards(self, gradient: Tensor) -> None:
        self.progress.check()
