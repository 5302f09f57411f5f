"""One progress bar over several phases, with the remaining time and Cancel."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted

from ...unlearn_core.foundation.progress import Progress

BAR = 1000  # length of the bar; each phase has a share of it
RELIABLE_AFTER = 0.5  # seconds of a phase before its speed predicts the remaining time


class NodeProgress(Progress):
    """The progress bar of a node; the phases fill it one after another.

    ``check`` raises ComfyUI's ``InterruptProcessingException`` after Cancel. It is a subclass of
    ``Exception``, so a broad ``except`` would swallow it.

    Args:
        costs: the cost of each phase in any unit, in the order of the phases.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        super().__init__()
        self.costs, self.bar, self.position = dict(costs), comfy.utils.ProgressBar(BAR), -1

    def show(self) -> None:
        names = list(self.costs)
        before = sum(self.costs[name] for name in names[: names.index(self.name)])
        cost = before + self.costs[self.name] * self._share()
        position = round(cost / sum(self.costs.values()) * BAR)
        if position != self.position:  # bytes tick far more often than the bar moves
            self.position = position
            self.bar.update_absolute(position, BAR)

    def announce(self, sentence: str) -> None:
        logging.warning("Unlearn: %s", sentence)

    def check(self) -> None:
        throw_exception_if_processing_interrupted()

    def seconds_left(self) -> float | None:
        """Estimate from the speed of this phase and the costs of later ones; None if unknown."""
        elapsed = time.perf_counter() - self.start_time
        if elapsed < RELIABLE_AFTER or self.done == 0:
            return None
        names = list(self.costs)
        later = sum(self.costs[name] for name in names[names.index(self.name) + 1 :])
        phase = elapsed / self._share()
        return phase - elapsed + phase * later / self.costs[self.name]

    def _share(self) -> float:
        return self.done / self.total if self.total else 1.0
