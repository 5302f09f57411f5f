"""One progress bar over several phases, the time that is left, and Cancel."""

from __future__ import annotations

import time
from collections.abc import Mapping

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted

from ...unlearn_core.foundation.progress import Progress

BAR = 1000  # the bar's length; each phase has a share of it
RELIABLE_AFTER = 0.5  # seconds of a phase, before its pace predicts the rest


class NodeProgress(Progress):
    """A node's progress bar, which its phases fill one after the other.

    ``check`` raises ComfyUI's ``InterruptProcessingException`` after Cancel. It is an
    ``Exception``: a broad ``except`` would swallow it.

    Args:
        costs: the cost of each phase, in any unit and in the order of the phases.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        super().__init__()
        self.costs, self.bar, self.filled = dict(costs), comfy.utils.ProgressBar(BAR), -1

    def show(self) -> None:
        names = list(self.costs)
        before = sum(self.costs[name] for name in names[: names.index(self.name)])
        share = before + self.costs[self.name] * self._share()
        filled = round(share / sum(self.costs.values()) * BAR)
        if filled != self.filled:  # bytes tick far more often than the bar moves
            self.filled = filled
            self.bar.update_absolute(filled, BAR)

    def check(self) -> None:
        throw_exception_if_processing_interrupted()

    def seconds_left(self) -> float | None:
        """By the pace of this phase, and the costs of the later ones; None while unknown."""
        passed = time.perf_counter() - self.began
        if passed < RELIABLE_AFTER or self.done == 0:
            return None
        names = list(self.costs)
        later = sum(self.costs[name] for name in names[names.index(self.name) + 1 :])
        phase = passed / self._share()
        return phase - passed + phase * later / self.costs[self.name]

    def _share(self) -> float:
        return self.done / self.total if self.total else 1.0
