"""Stores the state of a run while it trains, and continues a stopped run from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..foundation.cost import TRAINING
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import UNLEARNING, Progress
from ..foundation.signals import deferred
from ..saving.resume import is_state, read_state, write_state
from ..unlearning.loop import Unlearning
from ..unlearning.methods import Run
from ..unlearning.snapshot import Snapshot

INTERVAL = 30.0  # seconds between two states
PARTS = 10  # a state after each tenth of the steps, if that is sooner
SHARE = 0.03  # of the run's time that may be spent on writing
ASSUMED_SPEED = 5e8  # bytes per second, before the first writing is measured


@dataclass(frozen=True)
class Earlier:
    """The cost of a stopped run.

    Attributes:
        seconds: of each phase.
        training: denoiser passes of the steps. Those of the pictures are counted again, although
            they come from the cache.
    """

    seconds: Mapping[str, float]
    training: int


class Resumption:
    """The stored state of one run.

    A state is written after every ``INTERVAL`` or tenth of the steps, but rarely enough for
    ``SHARE``; and when the run ends, however it ends. A disk that cannot be written to does not end
    the run.

    Args:
        file: of the state.
        identity: of the run; see ``Task.identity``.
        progress: its cost includes that of the stopped run.
        processes: all of them read the state, the main one writes it.
        cure: what to do about a state that cannot be continued.
        warn: shows a sentence to the user.
        clock: seconds.
    """

    def __init__(
        self,
        file: Path,
        identity: Mapping[str, Any],
        progress: Progress,
        processes: Processes = ALONE,
        cure: str = "begin anew",
        warn: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file, self.identity, self.progress = file, identity, progress
        self.processes = processes
        self.cure, self.warn, self.clock = cure, warn, clock
        self.started = self.last_time = clock()
        self.spent = self.last_duration = 0.0
        self.last_step, self.restarts = 0, False
        self.problem = ""  # why the last state could not be written

    def read(self) -> Snapshot | None:
        """The state to continue from; None if there is none.

        Raises:
            ValueError: the file is damaged or belongs to another run, or the processes see
                different files.
        """
        if self.restarts:
            return None
        try:
            snapshot = read_state(self.file, self.identity) if self.file.exists() else None
        except ValueError as error:
            raise ValueError(f"{error}; {self.cure}") from None
        step = torch.tensor(0 if snapshot is None else snapshot.step)
        agreed = step.clone()
        self.processes.copy_main_([agreed])
        if not torch.equal(step, agreed):
            raise ValueError(
                f"the processes of this run see different states in {str(self.file.parent)!r}; "
                f"choose a folder that all hosts share, or {self.cure}"
            )
        return snapshot

    def use(self, identity: Mapping[str, Any]) -> None:
        """Store a run with another identity than announced, because its scope has changed."""
        self.identity = identity

    def restart(self) -> None:
        """Begin anew.

        Raises:
            ValueError: the file is not from this program, so it is not replaced.
        """
        if self.file.exists() and not is_state(self.file):
            raise ValueError(
                f"{str(self.file)!r} is not the state of a run, so it is not replaced; move it, or "
                "choose another folder"
            )
        self.restarts = True  # another process may read before the main one deletes
        self.remove()

    def remove(self) -> None:
        """Delete the stored state."""
        if self.processes.is_main and self.file.exists() and is_state(self.file):
            self.file.unlink()

    def continue_from(self, run: Run, snapshot: Snapshot) -> None:
        """Restore a run from the result of ``read``.

        Raises:
            ValueError: the state does not suit the run.
        """
        assert isinstance(run, Unlearning), "no other method has steps to store"
        earlier = snapshot.part("earlier", Earlier)
        run.restore(snapshot)
        self.last_step = snapshot.step
        for phase, seconds in earlier.seconds.items():
            self.progress.seconds[phase] = self.progress.seconds.get(phase, 0.0) + seconds
        self.progress.count_passes(earlier.training, TRAINING)

    def after_step(self, run: Run) -> None:
        """Write a state if one is due."""
        assert isinstance(run, Unlearning), "no other method has steps"
        if not self.processes.is_main:
            return
        elapsed = self.clock() - self.last_time
        steps = abs(len(run.reports) - self.last_step)  # the run may have gone back
        if elapsed < INTERVAL and steps < math.ceil(len(run) / PARTS):
            return
        snapshot = run.snapshot()
        size = sum(tensor.nbytes for tensor in snapshot.tensors.values())
        duration = self.last_duration or size / ASSUMED_SPEED
        if self.spent + duration <= SHARE * (self.clock() - self.started):
            self._write(snapshot)

    def after_run(self, run: Run) -> None:
        """Write the last state, unless it is stored already, or a failure has spoilt it."""
        if not isinstance(run, Unlearning) or not run.whole:
            return
        if run.reports and len(run.reports) != self.last_step:
            self._write(run.snapshot())

    def _write(self, snapshot: Snapshot) -> None:
        if not self.processes.is_main:
            return
        self.last_time = self.clock()
        try:
            if snapshot.is_finite:
                values = {**snapshot.values, "earlier": asdict(self._cost(snapshot))}
                with deferred():  # a second Ctrl+C waits
                    write_state(self.file, Snapshot(snapshot.tensors, values), self.identity)
                    self.last_step = snapshot.step
            self.problem = ""
        except (OSError, RuntimeError) as error:  # a full disk, or a device that has failed
            if not self.problem:
                self.warn(f"Warning: step {snapshot.step} could not be stored ({error}).")
            self.problem = str(error)
        self.last_duration = self.clock() - self.last_time
        self.spent += self.last_duration

    def _cost(self, snapshot: Snapshot) -> Earlier:
        # The progress adds the seconds of a phase at its end only.
        training = sum(report["seconds"] for report in snapshot.values["reports"])
        return Earlier(
            {**self.progress.seconds, UNLEARNING: training}, self.progress.passes[TRAINING]
        )
