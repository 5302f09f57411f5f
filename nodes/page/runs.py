"""Runs of unlearning as the page follows them: what is told while they go on, what is asked of
them meanwhile, and what of them can be had back."""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from server import PromptServer

from ...unlearn_core.models.protocol import ModelHandle
from ...unlearn_core.prompts.pairs import PromptPairs
from ...unlearn_core.saving.run_state import (
    read_description,
    read_unlearned,
    state,
    write_unlearned,
)
from ...unlearn_core.unlearning.results import StepReport, UnlearnedModel
from ...unlearn_core.unlearning.settings import UnlearnSettings
from ..host.images import FilePlace, temp_folder, to_temp
from .saved_steps import room_for, thinned

Place = tuple[str | None, str]  # the ids of a graph and of a node in it

RUNNING, FINISHED, KEPT, CANCELLED, FAILED = "running", "finished", "kept", "cancelled", "failed"
OTHER_RUNS = 3  # ended runs of other nodes and graphs that can still be had back
LAST = -1  # asked for: whichever step the run is in


@dataclass
class LiveRun:
    """One run, as far as it has come.

    Attributes:
        node, workflow: ids of the node and of the graph that it stands in.
        identity: says whether another run would come to the same.
        total: steps of a whole run.
        prompts: of the previews; the first ``forget_count`` ask for the concept.
        steps: for each: number, forget loss, retain loss, cosine, conflict.
        client: id of the browser tab that queued the run; None where a script did.
        before: pictures of ``prompts`` in one row, before unlearning.
        previews: the same prompts by step; step 0 is after a closed-form edit, which has no steps.
        kept: steps that are saved, in ascending order.
        result: the step whose state was given; None where there was none.
        asked: the step to end with, as the person asked while it went on; ``LAST`` for whichever
            it is in.
    """

    node: str
    workflow: str | None
    identity: str
    total: int
    prompts: Sequence[str]
    forget_count: int
    client: str | None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = RUNNING
    note: str = ""
    phase: str = ""
    done: int = 0
    of: int = 1
    seconds_left: float | None = None
    steps: list[list[Any]] = field(default_factory=list)
    before: FilePlace | None = None
    previews: dict[int, FilePlace] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    result: int | None = None
    asked: int | None = None
    choice: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while ``kept`` or ``asked`` changes: a step that was asked for must stay saved."""

    @property
    def place(self) -> Place:
        return self.workflow, self.node

    @property
    def folder(self) -> Path:
        return temp_folder(self.key)

    def begin(self) -> None:
        """Replace this node's previous run, and delete its saved steps and those of old runs."""
        ended = [run for run in RUNS.values() if run.state != RUNNING and run.place != self.place]
        for run in (RUNS.get(self.place), *ended[:-OTHER_RUNS]):
            if run is not None:
                shutil.rmtree(run.folder, ignore_errors=True)
                del RUNS[run.place]
        self.folder.mkdir(parents=True)
        RUNS[self.place] = self
        self._send("unlearn.run", self.told())

    def end(self, state: str, note: str = "", result: int | None = None) -> None:
        self.state, self.note, self.result, self.seconds_left = state, note, result, None
        self._send("unlearn.run", self.told())

    def progress(self, phase: str, done: int, of: int, seconds_left: float | None) -> None:
        self.phase, self.done, self.of, self.seconds_left = phase, done, of, seconds_left
        self._send(
            "unlearn.phase", {"phase": phase, "done": done, "of": of, "seconds_left": seconds_left}
        )

    def step(self, report: StepReport) -> None:
        told = report.as_json()
        names = ("step", "forget_loss", "retain_loss", "cosine", "conflict")
        self.steps.append([told[name] for name in names])
        self._send("unlearn.step", {**{name: told[name] for name in names}, "total": self.total})

    def preview_before(self, picture: Image.Image) -> None:
        """Show what the model draws before unlearning."""
        self.before = to_temp(picture, self.key, "before")
        self._send("unlearn.before", {"picture": self.before})

    def preview(self, step: int, picture: Image.Image) -> None:
        """Show what the model draws at this step."""
        where = to_temp(picture, self.key, f"step_{step:06d}")
        self.previews[step] = where
        self._send("unlearn.preview", {"step": step, "picture": where})

    def keep(self, unlearned: UnlearnedModel) -> None:
        """Save this step, and delete earlier ones where they would take too much of the disk."""
        tensors = state(unlearned.model).values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        step = len(unlearned.reports)
        room = room_for(size, len(self.kept), self.folder)
        if step == 0 or step in self.kept or room == 0:
            return
        try:
            write_unlearned(unlearned, self._state_file(step), {"identity": self.identity})
        except OSError as error:  # the run itself is worth more than a way back to this step
            logging.warning("Unlearn could not keep step %d: %s", step, error)
            return
        with self.choice:
            before, self.kept = self.kept, thinned([*self.kept, step], room, self.asked)
        for dropped in set(before).difference(self.kept):
            self._state_file(dropped).unlink(missing_ok=True)
        self._send("unlearn.kept", {"kept": self.kept})

    def has_state(self, step: int) -> bool:
        return step in self.kept and self._state_file(step).exists()

    def state_at(
        self, step: int, base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings
    ) -> UnlearnedModel:
        """The model as it was after a step that was kept.

        Raises:
            ValueError: the file is gone, or of another run.
        """
        file = self._state_file(step)
        if read_description(file).get("identity") != self.identity:
            raise ValueError(f"{file.name!r} is of another run")
        return read_unlearned(file, base, pairs, settings)

    def told(self) -> dict[str, Any]:
        """All of it, for a page that has seen nothing yet."""
        return {
            "key": self.key,
            "node": self.node,
            "workflow": self.workflow,
            "state": self.state,
            "note": self.note,
            "phase": self.phase,
            "done": self.done,
            "of": self.of,
            "seconds_left": self.seconds_left,
            "total": self.total,
            "prompts": list(self.prompts),
            "forget_count": self.forget_count,
            "steps": self.steps,
            "before": self.before,
            # A list first: the server's thread reads while the run's writes.
            "previews": [{"step": s, "picture": at} for s, at in list(self.previews.items())],
            "kept": self.kept,
            "result": self.result,
        }

    def _state_file(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}.safetensors"

    def _send(self, event: str, data: dict[str, Any]) -> None:
        """To the browser tab that queued the run: the prompts are nobody else's business. Without a
        client id ComfyUI would send to all of them."""
        if self.client is None:
            return
        # Node ids are unique only within a graph, and the page may show another one by now.
        place = {"node": self.node, "workflow": self.workflow}
        PromptServer.instance.send_sync(event, {**place, **data}, self.client)


RUNS: dict[Place, LiveRun] = {}  # the last run of each node


def end_now(key: str, step: int | None) -> LiveRun:
    """Have a run end after the step that it is in, or with the state of an earlier one.

    Args:
        step: None for the one it is in.

    Raises:
        ValueError: no such run, or a step that is not saved.
    """
    run = next((run for run in list(RUNS.values()) if run.key == key), None)
    if run is None or run.state != RUNNING or not run.steps:
        raise ValueError("there is nothing to stop: no step is being made")
    with run.choice:
        if step is not None and step not in run.kept:
            raise ValueError(f"step: step {step} is not saved; choose one of {run.kept}")
        run.asked = LAST if step is None else step
    return run
