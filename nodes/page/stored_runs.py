"""States of stopped runs on disk, from which a node continues also after a restart of ComfyUI."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ...unlearn_core.foundation.disk_errors import delete
from ...unlearn_core.foundation.progress import Progress
from ...unlearn_core.job.resumption import Resumption
from ...unlearn_core.unlearning.results import UnlearnedModel
from ...unlearn_core.unlearning.snapshot import Snapshot
from ..host.folders import states_folder

MOST_STATES = 4
MOST_BYTES = 20 * 2**30  # of all states
SHARE_OF_DISK = 0.5  # of the free disk space that one state may take
OTHER_INPUTS, DAMAGED = "other inputs", "damaged"
DIGITS = 16  # of a hash in a file's name

_UNSAVED: WeakKeyDictionary[UnlearnedModel, Path] = WeakKeyDictionary()
"""The states of finished runs. Until the result is saved, the server may be killed, for example
during the evaluation; then the state is the only copy of it."""


class StoredRun(Resumption):
    """The stored state of one run of a node.

    A state belongs to the inputs of the run, wherever they are used. A state of the same node with
    other inputs stays until newer states need its room.

    Args:
        place: the ids of a graph and of a node in it.
        identity: of the run; see ``Task.identity``.
        progress: of the run.

    Attributes:
        note: why an existing state is not continued; empty if there is none.
    """

    def __init__(
        self, place: tuple[str | None, str], identity: Mapping[str, Any], progress: Progress
    ) -> None:
        super().__init__(
            states_folder(),
            identity,
            progress,
            warn=lambda sentence: logging.warning("Unlearn: %s", sentence),
        )
        self.node, self.note = _digest(place), ""
        self.use(identity)

    def use(self, identity: Mapping[str, Any]) -> None:
        super().use(identity)
        folder, same_inputs = states_folder(), stored_file(identity)
        self.file = same_inputs or folder / f"{self.node}-{_digest(identity)}.safetensors"
        others = folder.glob(f"{self.node}-*.safetensors")
        if same_inputs is None and not self.note and any(others):
            self.note = OTHER_INPUTS

    def read(self) -> Snapshot | None:
        """The state to continue from; None if there is none, or if it is damaged."""
        try:
            return super().read()
        except ValueError as error:
            self.warn(f"The stopped run cannot be continued: {error}.")
            self.note = DAMAGED
            return None

    def _write(self, snapshot: Snapshot) -> None:
        size = sum(tensor.nbytes for tensor in snapshot.tensors.values())
        if make_room(self.file, size):
            super()._write(snapshot)
        else:
            self.last_time = self.clock()
            if not self.problem:
                self.problem = "the disk has too little free space"
                self.warn(f"Step {snapshot.step} is not stored: {self.problem}.")


def stored_file(identity: Mapping[str, Any]) -> Path | None:
    """The state of a run with these inputs; None if there is none."""
    return next(iter(sorted(states_folder().glob(f"*-{_digest(identity)}.safetensors"))), None)


def make_room(file: Path, size: int) -> bool:
    """Delete the oldest other states, so that ``file`` has room for a state of ``size`` bytes;
    False if there is too little room in any case."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if size > min(MOST_BYTES, SHARE_OF_DISK * shutil.disk_usage(file.parent).free):
        return False
    others = [other for other in file.parent.glob("*.safetensors") if other != file]
    total = size
    newest_first = sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)
    for count, other in enumerate(newest_first, start=2):
        total += other.stat().st_size
        if count > MOST_STATES or total > MOST_BYTES:
            other.unlink(missing_ok=True)
    return True


def keep_until_saved(file: Path, unlearned: UnlearnedModel) -> None:
    """Keep the state of a finished run until ``after_saving`` of its result."""
    _UNSAVED[unlearned] = file


def after_saving(unlearned: UnlearnedModel) -> None:
    """Delete the state of the run with this result."""
    file = _UNSAVED.pop(unlearned, None)
    if file is not None:
        delete(file)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:DIGITS]
