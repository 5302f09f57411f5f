"""One progress bar over several phases, the time that is left, and Cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted

BAR = 1000  # the bar's length; phases take their share of it
SURE_AFTER = 0.5  # seconds of a phase before its pace says anything

OnUpdate = Callable[[str, int, int, "float | None"], None]


class Phases:
    """A bar that several phases fill one after the other, each by the share of its cost.

    Every update raises ComfyUI's ``InterruptProcessingException`` once Cancel was pressed. It is
    an ``Exception``: whoever catches broadly swallows it.

    Args:
        costs: of each phase, in their order and in any unit.
        on_update: told (phase, done, total, seconds left), the last None while nobody knows.
    """

    def __init__(self, costs: Mapping[str, float], on_update: OnUpdate | None = None) -> None:
        self.costs, self.on_update = dict(costs), on_update
        self.bar = comfy.utils.ProgressBar(BAR)
        self.phase, self.began, self.updated = "", 0.0, time.monotonic()

    def update(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` in ``phase``; every phase named before it counts as complete."""
        if phase != self.phase:  # began with the work that this first update tells of
            self.phase, self.began = phase, self.updated
        self.updated = time.monotonic()
        names = list(self.costs)
        before = sum(self.costs[name] for name in names[: names.index(phase)])
        share = (before + self.costs[phase] * done / total) / sum(self.costs.values())
        obey_cancel()
        self.bar.update_absolute(round(share * BAR), BAR)
        if self.on_update is not None:
            self.on_update(phase, done, total, self._seconds_left(phase, done, total))

    def _seconds_left(self, phase: str, done: int, total: int) -> float | None:
        """By the pace of this phase, which is also that of those to come as their costs have it."""
        passed = self.updated - self.began
        if passed < SURE_AFTER or done == 0:
            return None
        names = list(self.costs)
        later = sum(self.costs[name] for name in names[names.index(phase) + 1 :])
        whole = passed * total / done
        return whole - passed + whole * later / self.costs[phase]

    def of(self, phase: str) -> Callable[[int, int], None]:
        """The phase's own ``(done, total)`` callback."""
        return lambda done, total: self.update(phase, done, total)


def obey_cancel() -> None:
    """Raise where Cancel was pressed; for places without progress to tell, between two steps."""
    throw_exception_if_processing_interrupted()
