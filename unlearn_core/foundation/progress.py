"""Progress of a long operation, and requests to stop it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from typing_extensions import Self

from .cost import DRAWING, JUDGING, KINDS_OF_WORK, TRAINING, Cost

# The phases of a job, in their usual order.
LOADING = "loading"  # bytes
READING_PICTURES = "reading pictures"
PROPOSING = "proposing"  # attempts of a language model
COMPARING = "comparing"  # pictures of neighbouring words
ESTIMATING = "estimating memory"  # steps with one and with two pictures, and drawing
MAKING_IMAGES = "making images"
FIRST_EDIT = "first edit"  # prompt pairs
UNLEARNING = "unlearning"  # steps
EVALUATING = "evaluating"  # pictures
PROBING = "probing"  # probes
EXTRACTING = "extracting"  # tensors of a LoRA
SAVING = "saving"  # bytes

_WORK = {COMPARING: DRAWING, MAKING_IMAGES: DRAWING, UNLEARNING: TRAINING}
"""Phase -> its kind of work; in all other phases, pictures are drawn to be looked at."""

Part = TypeVar("Part")


class Progress:
    """The progress of one operation, phase by phase.

    This class shows nothing and never stops the operation; subclasses override ``show`` and
    ``check``.

    Attributes:
        name: the current phase.
        done, total: finished units and all units of this phase.
        note: figures of the last unit, to show beside the bar.
        start_time: start of this phase, from ``time.perf_counter``.
        seconds: the duration of each phase so far.
        passes: the denoiser passes so far for each of ``KINDS_OF_WORK``, see ``Cost``.
    """

    def __init__(self) -> None:
        self.name, self.note, self.done, self.total, self.start_time = "", "", 0, 0, 0.0
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, int] = dict.fromkeys(KINDS_OF_WORK, 0)

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Self]:
        """Context of a phase of ``total`` units. Phases must not be nested."""
        self.name, self.note, self.done, self.total = name, "", 0, total
        self.start_time = time.perf_counter()
        self.show()
        self.check()
        try:
            yield self
        finally:
            seconds = time.perf_counter() - self.start_time
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def tick(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more units as done; raises what ``check`` raises."""
        self.done, self.note = self.done + count, note
        self.show()
        self.check()

    def ticking(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Iterate over ``parts`` with a tick after each."""
        for part in parts:
            yield part
            self.tick()

    def show(self) -> None:
        """Show the current state."""

    def announce(self, sentence: str) -> None:
        """Show a sentence to the user."""

    def check(self) -> None:
        """Raise an exception to stop the operation. Called often, also between two ticks."""

    def count_passes(self, count: int, work: str | None = None) -> None:
        """Count denoiser passes.

        Args:
            work: one of ``KINDS_OF_WORK``; None for that of the current phase.
        """
        self.passes[work or _WORK.get(self.name, JUDGING)] += count

    def cost(self, since: Cost | None = None) -> Cost:
        """The cost so far, without the peak memory.

        Args:
            since: an earlier cost of this progress, which is subtracted.
        """
        earlier = since or Cost()
        return Cost(
            {k: v - earlier.seconds.get(k, 0.0) for k, v in self.seconds.items()},
            {k: v - earlier.passes.get(k, 0) for k, v in self.passes.items()},
        )

    def silent(self, work: str | None = None) -> Progress:
        """Progress for work within one unit: shows nothing, but has the same ``check``.

        Args:
            work: what denoiser passes are counted as; None for that of the phase.
        """
        return _Silent(self, work)


class _Silent(Progress):
    def __init__(self, outer: Progress, work: str | None) -> None:
        super().__init__()
        self.outer, self.work = outer, work

    def announce(self, sentence: str) -> None:
        self.outer.announce(sentence)

    def check(self) -> None:
        self.outer.check()

    def count_passes(self, count: int, work: str | None = None) -> None:
        self.outer.count_passes(count, work or self.work)
