"""The progress of a long task, and requests to stop it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from typing_extensions import Self

# The phases of a job, in their usual order.
LOADING = "loading"  # bytes
READING_PICTURES = "reading pictures"
PROPOSING = "proposing"  # attempts of a language model
COMPARING = "comparing"  # pictures of neighbouring words
MAKING_IMAGES = "making images"
FIRST_EDIT = "first edit"  # prompt pairs
UNLEARNING = "unlearning"  # steps
EVALUATING = "evaluating"  # pictures
PROBING = "probing"  # probes
EXTRACTING = "extracting"  # tensors of a LoRA
SAVING = "saving"  # bytes

Part = TypeVar("Part")


class Progress:
    """The progress of one task, phase by phase.

    This class shows nothing and never stops the task. Subclasses override ``show`` and ``check``.

    Attributes:
        name: the current phase.
        done, total: finished units and all units of that phase.
        note: figures of the last unit, to show beside the bar.
        began: start time of that phase, by ``time.perf_counter``.
        seconds: the duration of each phase so far.
    """

    def __init__(self) -> None:
        self.name, self.note, self.done, self.total, self.began = "", "", 0, 0, 0.0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Self]:
        """A phase of ``total`` units. Phases follow one another and are not nested."""
        self.name, self.note, self.done, self.total = name, "", 0, total
        self.began = time.perf_counter()
        self.show()
        self.check()
        try:
            yield self
        finally:
            passed = time.perf_counter() - self.began
            self.seconds[name] = self.seconds.get(name, 0.0) + passed

    def tick(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` further units as done; raises as ``check`` does."""
        self.done, self.note = self.done + count, note
        self.show()
        self.check()

    def ticking(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Iterate over ``parts``, with a tick after each."""
        for part in parts:
            yield part
            self.tick()

    def show(self) -> None:
        """Show the current state."""

    def check(self) -> None:
        """Raise an exception to stop the work. Called often, also between two ticks."""

    def silent(self) -> Progress:
        """Progress for work within one unit: shows nothing, and has the same ``check``."""
        return _Silent(self)


class _Silent(Progress):
    def __init__(self, outer: Progress) -> None:
        super().__init__()
        self.outer = outer

    def check(self) -> None:
        self.outer.check()
