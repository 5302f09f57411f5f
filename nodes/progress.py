"""One progress bar over several phases, live pictures, Cancel, and the event after each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from server import PromptServer

from ..unlearn_core.unlearn import StepReport

BAR = 1000  # the bar's length; phases take their share of it
PREVIEW_EDGE = 768  # px, of the longer edge


class Phases:
    """A bar that several phases fill one after the other, each by the share of its cost.

    Every update raises ComfyUI's ``InterruptProcessingException`` once Cancel was pressed. It is
    an ``Exception``: whoever catches broadly swallows it.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs = dict(costs)
        self.bar = comfy.utils.ProgressBar(BAR)

    def update(self, phase: str, done: int, total: int, preview: Image.Image | None = None) -> None:
        """``done`` of ``total`` in ``phase``; every phase named before it counts as complete."""
        names = list(self.costs)
        before = sum(self.costs[name] for name in names[: names.index(phase)])
        share = (before + self.costs[phase] * done / total) / sum(self.costs.values())
        obey_cancel()
        shown = None if preview is None else ("JPEG", preview, PREVIEW_EDGE)
        self.bar.update_absolute(round(share * BAR), BAR, shown)

    def of(self, phase: str) -> Callable[[int, int], None]:
        """The phase's own ``(done, total)`` callback."""
        return lambda done, total: self.update(phase, done, total)


def obey_cancel() -> None:
    """Raise where Cancel was pressed; for places without progress to tell, between two steps."""
    throw_exception_if_processing_interrupted()


def send_step(node_id: str, report: StepReport, total: int) -> None:
    """Tell the page what a step did, as the event ``unlearn.step``."""
    server = PromptServer.instance
    data = {
        "node": node_id,
        "step": report.step,
        "total": total,
        "forget_loss": _or_none(report.forget_loss),
        "retain_loss": _or_none(report.retain_loss),
        "cosine": _or_none(report.cosine),
        "conflict": report.conflict,
    }
    server.send_sync("unlearn.step", data, server.client_id)


def _or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity: the page would refuse the whole message."""
    return value if math.isfinite(value) else None
