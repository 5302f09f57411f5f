"""State of each unlearning run for the page: progress events, stop requests and saved steps."""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy.model_management import interrupt_current_processing
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...unlearn_core.foundation.disk_errors import delete
from ...unlearn_core.models.protocol import ModelHandle
from ...unlearn_core.prompts.pairs import PromptPairs
from ...unlearn_core.saving.run_state import (
    read_description,
    read_unlearned,
    state,
    write_unlearned,
)
from ...unlearn_core.unlearning.alarms import Alarm
from ...unlearn_core.unlearning.plan import Plan
from ...unlearn_core.unlearning.results import StepReport, UnlearnedModel
from ...unlearn_core.unlearning.settings import UnlearnSettings
from ..host.images import FilePlace, temp_folder, to_temp
from .saved_steps import room_for, spread_evenly

Place = tuple[str | None, str]  # the ids of a graph and of a node in it

RUNNING, FINISHED, KEPT, CANCELLED, FAILED = "running", "finished", "kept", "cancelled", "failed"
OTHER_RUNS = 3  # number of ended runs of other nodes whose saved steps stay on disk
FIGURES = ("step", "forget_loss", "retain_loss", "cosine", "conflict")  # of each step
LAST = -1  # request to end with the current step


@dataclass
class LiveRun:
    """One run and its current state.

    Attributes:
        node, workflow: ids of the node and of its graph.
        identity: equal for two runs with the same result.
        total: number of steps of a complete run.
        prompts: of the previews; the first ``forget_count`` contain the concept.
        steps: number, forget loss, retain loss, cosine and conflict of each step.
        client: id of the browser tab that queued the run; None if a script did.
        before: pictures of ``prompts`` in one row, before unlearning.
        previews: pictures of the same prompts by step; a closed-form edit has no steps, and step 0
            is the state after it.
        saved: steps that are saved on disk, in ascending order.
        result: the step whose state is the node's output; None before there is an output.
        end_step: the step with whose state the user ends the run; ``LAST`` for the current one.
        automatic: the settings that were chosen for the model, by name.
        memory: how the run uses memory, see ``Plan``; None before this is known.
        alarms: what went wrong, as kind, step, message and the values in the message.
        notes: sentences about the course of the run, such as one about a full disk.
        resumed_at: the step after which the run continues a stopped one; None if it does not.
        not_resumed: why it does not continue an existing one, see ``StoredRun.note``.
        stored: the step from which the next execution would continue; None if there is none.
        state_file: the file of its stored state.
        restart: the user wants the next execution to begin anew.
        drawn: the pictures of ``prompts`` before and at the last preview, and those of the first
            prompt at other strengths, for a repeated execution of the node.
    """

    node: str
    workflow: str | None
    identity: str
    total: int
    prompts: Sequence[str]
    forget_count: int
    client: str | None
    automatic: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = RUNNING
    note: str = ""
    phase: str = ""
    done: int = 0
    of: int = 1
    seconds_left: float | None = None
    steps: list[list[Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: FilePlace | None = None
    previews: dict[int, FilePlace] = field(default_factory=dict)
    saved: list[int] = field(default_factory=list)
    result: int | None = None
    end_step: int | None = None
    memory: dict[str, Any] | None = None
    resumed_at: int | None = None
    not_resumed: str = ""
    stored: int | None = None
    state_file: Path | None = None
    restart: bool = False
    drawn: dict[str, Tensor] = field(default_factory=dict, repr=False)
    end_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while ``saved`` or ``end_step`` changes, because ``end_step`` must stay saved."""

    @property
    def place(self) -> Place:
        return self.workflow, self.node

    @property
    def folder(self) -> Path:
        return temp_folder(self.key)

    def begin(self, *, continues: bool = False) -> None:
        """Replace this node's previous run, and delete its saved steps and those of old runs.

        Args:
            continues: the previous run may be continued: its steps and pictures are shown until
                ``begin_steps``.
        """
        previous = RUNS.get(self.place)
        if previous is not None and continues and previous.identity == self.identity:
            self.key, self.before = previous.key, previous.before
            self.steps, self.previews = previous.steps, previous.previews
            self.saved, self.alarms = previous.saved, previous.alarms
            previous = None
        ended = [run for run in RUNS.values() if run.state != RUNNING and run.place != self.place]
        for run in (previous, *ended[:-OTHER_RUNS]):
            if run is not None:
                shutil.rmtree(run.folder, ignore_errors=True)
                del RUNS[run.place]
        self.folder.mkdir(parents=True, exist_ok=True)
        RUNS[self.place] = self
        self._send("unlearn.run", self.as_json())

    def change_scope(
        self, identity: str, total: int, automatic: Mapping[str, Any], state_file: Path
    ) -> None:
        """Show the values of the smaller scope that was chosen for the memory of the device."""
        self.identity, self.total, self.state_file = identity, total, state_file
        self.automatic = automatic
        self._send("unlearn.run", self.as_json())

    def begin_steps(self, resumed_at: int, unlearned: UnlearnedModel, not_resumed: str) -> None:
        """Show the steps and alarms of the stopped run that this one continues.

        Args:
            resumed_at: the number of its steps; 0 for a new run.
            unlearned: has their reports.
            not_resumed: see the attribute.
        """
        self._remove_steps_after(resumed_at)
        self.resumed_at, self.not_resumed = resumed_at or None, not_resumed
        if resumed_at:
            self.steps = [_figures(report) for report in unlearned.reports]
            self.alarms = [_alarm_json(alarm) for alarm in unlearned.alarms]
        self._send("unlearn.run", self.as_json())

    def end(
        self, state: str, note: str = "", result: int | None = None, stored: int | None = None
    ) -> None:
        self.state, self.note, self.result, self.seconds_left = state, note, result, None
        self.stored = stored
        self._send("unlearn.run", self.as_json())

    def progress(self, phase: str, done: int, of: int, seconds_left: float | None) -> None:
        self.phase, self.done, self.of, self.seconds_left = phase, done, of, seconds_left
        self._send(
            "unlearn.phase", {"phase": phase, "done": done, "of": of, "seconds_left": seconds_left}
        )

    def step(self, report: StepReport) -> None:
        self.steps.append(_figures(report))
        figures = dict(zip(FIGURES, self.steps[-1], strict=True))
        self._send("unlearn.step", {**figures, "total": self.total})

    def plan(self, plan: Plan) -> None:
        """Show how the run uses memory."""
        self.memory = plan.as_json()
        self._send("unlearn.memory", {"memory": self.memory})

    def alarm(self, alarm: Alarm) -> None:
        """Show an alarm, and remove the steps that it undoes."""
        logging.warning("Unlearn: %s", alarm.message)
        self.alarms.append(_alarm_json(alarm))
        if alarm.back_to is not None:
            self._remove_steps_after(alarm.back_to)
        self._send("unlearn.run", self.as_json())

    def add_note(self, sentence: str) -> None:
        self.notes.append(sentence)
        self._send("unlearn.run", self.as_json())

    def _remove_steps_after(self, last: int) -> None:
        del self.steps[last:]
        self.previews = {step: place for step, place in self.previews.items() if step <= last}
        with self.end_lock:  # the user may have chosen one of them in this moment
            undone = [step for step in self.saved if step > last and step != self.end_step]
            self.saved = [step for step in self.saved if step not in undone]
        for step in undone:
            delete(self._state_file(step))

    def preview_before(self, picture: Image.Image) -> None:
        """Show the preview from before unlearning."""
        self.before = self._write_picture(picture, "before")
        if self.before is not None:
            self._send("unlearn.before", {"picture": self.before})

    def preview(self, step: int, picture: Image.Image) -> None:
        """Show the preview of this step."""
        place = self._write_picture(picture, f"step_{step:06d}")
        if place is not None:
            self.previews[step] = place
            self._send("unlearn.preview", {"step": step, "picture": place})

    def _write_picture(self, picture: Image.Image, name: str) -> FilePlace | None:
        """None if the disk is full: the run matters more than its pictures."""
        try:
            return to_temp(picture, self.key, name)
        except OSError as error:
            logging.warning("Unlearn: no preview: %s", error)
            return None

    def keep(self, unlearned: UnlearnedModel) -> None:
        """Save the current step, and delete earlier ones that would use too much disk space."""
        step = len(unlearned.reports)
        if step == 0 or step in self.saved:
            return
        tensors = state(unlearned.model).values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        try:
            room = room_for(size, len(self.saved), self.folder)
            if room == 0:
                raise OSError("it needs more than its share of the free disk space")
            write_unlearned(unlearned, self._state_file(step), {"identity": self.identity})
        except (OSError, ValueError) as error:  # a step with NaN will be undone
            # The run itself matters more than this saved step.
            logging.warning("Unlearn could not save step %d: %s", step, error)
            return
        with self.end_lock:
            previous = self.saved
            self.saved = spread_evenly([*previous, step], room, self.end_step)
        for surplus in set(previous).difference(self.saved):
            delete(self._state_file(surplus))
        self._send("unlearn.saved", {"saved": self.saved})

    def has_state(self, step: int) -> bool:
        return step in self.saved and self._state_file(step).exists()

    def state_at(
        self, step: int, base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings
    ) -> UnlearnedModel:
        """The model after a saved step.

        Raises:
            ValueError: the file is missing, or belongs to another run.
        """
        file = self._state_file(step)
        if read_description(file).get("identity") != self.identity:
            raise ValueError(f"{file.name!r} belongs to another run; run the node again")
        return read_unlearned(file, base, pairs, settings)

    def as_json(self) -> dict[str, Any]:
        """The complete state, for a page that has received no events yet."""
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
            "automatic": dict(self.automatic),
            "memory": self.memory,
            "prompts": list(self.prompts),
            "forget_count": self.forget_count,
            "steps": self.steps,
            "alarms": list(self.alarms),
            "notes": list(self.notes),
            "resumed_at": self.resumed_at,
            "not_resumed": self.not_resumed,
            "stored": self.stored,
            "before": self.before,
            # A copy, because the run's thread may add an entry while the server's thread reads.
            "previews": [
                {"step": step, "picture": place} for step, place in list(self.previews.items())
            ],
            "saved": self.saved,
            "result": self.result,
        }

    def _state_file(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}.safetensors"

    def _send(self, event: str, data: dict[str, Any]) -> None:
        """Send to the browser tab that queued the run, and to no other, because the prompts are
        private. Without a client id ComfyUI would send to all tabs."""
        if self.client is None:
            return
        # Node ids are unique only within a graph, and the page may show another graph by now.
        place = {"node": self.node, "workflow": self.workflow}
        PromptServer.instance.send_sync(event, {**place, **data}, self.client)


RUNS: dict[Place, LiveRun] = {}  # the last run of each node
RESTARTS = Counter[str]()  # ended runs that the user started again, by the node's id


def _figures(report: StepReport) -> list[Any]:
    values = report.as_json()
    return [values[name] for name in FIGURES]


def _alarm_json(alarm: Alarm) -> dict[str, Any]:
    return {**alarm.as_json(), "values": dict(alarm.values)}


def end_now(key: str, step: int | None) -> LiveRun:
    """End a run after its current step, or with the state of an earlier one.

    Args:
        step: None for the current one.

    Raises:
        ValueError: no such run is training, or the step is not saved.
    """
    run = next((run for run in list(RUNS.values()) if run.key == key), None)
    if run is None or run.state != RUNNING or not run.steps:
        raise ValueError("there is nothing to stop: this run is not training; reload the page")
    with run.end_lock:
        if step is not None and step not in run.saved:
            raise ValueError(f"step: step {step} is not saved; choose one of {run.saved}")
        run.end_step = LAST if step is None else step
    return run


def begin_anew(key: str) -> LiveRun:
    """Delete the stored state of a run, so that the next execution of its node begins anew; cancel
    the run if it is still running. After a finished run, its node counts as changed: otherwise
    ComfyUI would not execute it.

    Raises:
        ValueError: there is no such run.
    """
    run = next((run for run in list(RUNS.values()) if run.key == key), None)
    if run is None:
        raise ValueError("there is no such run any more; reload the page")
    run.restart = True  # a running one stores its last step once more, and deletes it then
    if run.state == RUNNING:
        interrupt_current_processing()
        return run
    if run.state_file is not None:
        run.state_file.unlink(missing_ok=True)
    run.stored = None
    RESTARTS[run.node] += 1
    return run
