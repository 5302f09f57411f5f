"""Progress objects that record updates or stop the work."""

from __future__ import annotations

from unlearn_core.foundation.progress import Progress


class Recorder(Progress):
    """Records each update as (phase, done units, total units)."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[str, int, int]] = []
        self.checks = 0

    def show(self) -> None:
        self.updates.append((self.name, self.done, self.total))

    def check(self) -> None:
        self.checks += 1

    def counts(self, phase: str) -> list[int]:
        """The number of done units at each update of a phase."""
        return [done for name, done, _ in self.updates if name == phase]


class StopError(Exception):
    """Stands in for the exception of a Cancel button."""


class Stopping(Recorder):
    """Stops the work at the check with this number, counted from 1."""

    def __init__(self, at: int = 1) -> None:
        super().__init__()
        self.at = at

    def check(self) -> None:
        super().check()
        if self.checks == self.at:
            raise StopError
