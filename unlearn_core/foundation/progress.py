"""How far a long piece of work has come, and whether to stop it."""

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
    """The progress of one piece of work, phase by phase.

    This class shows nothing and never stops the work. A subclass overrides ``show`` and ``check``.

    Attributes:
        name: the present phase.
        done, total: units of that phase.
        note: figures of the last unit, to show beside the bar.
        began: the time at which it began, by ``time.perf_counter``.
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
        """The same parts, with a tick after each."""
        for part in parts:
            yield part
            self.tick()

    def show(self) -> None:
        """Show the present state."""

    def check(self) -> None:
        """Raise an exception to stop the work. Called often, also between two ticks."""

    def silent(self) -> Progress:
        """Progress for work inside one unit of a phase: shows nothing, but stops like this."""
        return _Silent(self)


class _Silent(Progress):
    def __init__(self, outer: Progress) -> None:
        super().__init__()
        self.outer = outer

    def check(self) -> None:
        self.outer.check()
