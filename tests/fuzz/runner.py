"""Run inputs through a parser and count what happened. Input ``i`` of a target depends only on the
seed and on ``i``, so a run can be repeated, divided and continued."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .mutations import mutated
from .targets import Target

LONGEST = 10  # seconds of one input
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
IN_MEMORY = "/dev/shm"  # files of inputs; on a disk they cost ten times as long as most parsers
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
             "os.posix_spawn", "pickle.find_class")  # fmt: skip


@dataclass
class Figures:
    """The counts of some inputs of one target.

    Attributes:
        crashes: the inputs that raised anything but a refusal, as number and error; the first ten.
        slowest: seconds of the slowest input.
        outside: writes outside the input's folder, connections and started programs.
        megabytes: growth of the process's peak memory.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashed: int = 0
    crashes: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0
    outside: list[str] = field(default_factory=list)
    megabytes: float = 0.0

    def __iadd__(self, other: Figures) -> Figures:
        for name in ("inputs", "accepted", "refused", "crashed", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.crashes = [*self.crashes, *other.crashes][:10]
        self.outside = [*self.outside, *other.outside][:10]
        self.slowest = max(self.slowest, other.slowest)
        self.megabytes = max(self.megabytes, other.megabytes)
        return self

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class TooSlowError(BaseException):
    """An input took longer than ``LONGEST``; no parser may catch it."""


class Guard:
    """Notes writes outside one folder, connections and started programs, by Python's audit events.
    A hook cannot be removed, so there is one for the whole process."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.notes: list[str] = []
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        self.folder = str(folder)
        try:
            yield
        finally:
            self.folder = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.notes.append(f"{event} {str(arguments)[:100]}")
        elif event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not self._allowed(path):
                self.notes.append(f"open {path!r:.100}")
        elif event in WRITES and not self._allowed(path := _path(event, arguments)):
            self.notes.append(f"{event} {path!r:.100}")

    def _allowed(self, path: object) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        assert self.folder is not None
        return os.path.abspath(os.fsdecode(path)).startswith((self.folder, os.devnull))  # type: ignore[arg-type]


def _path(event: str, arguments: tuple[Any, ...]) -> object:
    """The path of an event; ``shutil.rmtree`` deletes by names within an open folder."""
    if event not in ("os.remove", "os.rmdir") or arguments[1] < 0:
        return arguments[0]
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), arguments[0])
    except OSError:  # macOS has no such links
        return arguments[1]


GUARD = Guard()


def input_of(target: Target, seed: int, number: int) -> bytes:
    """The input of this number; the first ones are the examples themselves."""
    examples = target.examples
    if number < len(examples):
        return examples[number]
    rng = random.Random(f"{seed} {target.name} {number}")
    return mutated(rng.choice(examples), examples, rng)


def run(target: Target, seed: int, first: int, count: int) -> Figures:
    """The figures of ``count`` inputs, from number ``first`` on."""
    figures, started = Figures(), time.perf_counter()
    before = _peak()
    previous = signal.signal(signal.SIGALRM, _too_slow)
    memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as place:
        try:
            for number in range(first, first + count):
                _one(target, input_of(target, seed, number), number, Path(place), figures)
        finally:
            signal.signal(signal.SIGALRM, previous)
    figures.seconds = time.perf_counter() - started
    figures.megabytes = _peak() - before
    return figures


def _one(target: Target, content: bytes, number: int, place: Path, figures: Figures) -> None:
    folder = place / "input"
    folder.mkdir()
    started = time.process_time()
    signal.alarm(3 * LONGEST)  # of a busy machine's time
    try:
        with GUARD.watching(folder):
            target.parse(content, folder)
        figures.accepted += 1
    except (ValueError, OSError):
        figures.refused += 1
    except (Exception, TooSlowError) as error:  # noqa: BLE001 - finding these is the purpose
        figures.crashed += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        note = f"{target.name} {number}: {type(error).__name__} {str(error)[:100]!r} in "
        figures.crashes.append(f"{note}{Path(where.filename).name}:{where.lineno}")
    finally:
        signal.alarm(0)
    seconds = time.process_time() - started
    if seconds > LONGEST:
        figures.crashes.append(f"{target.name} {number}: {seconds:.1f} s")
        figures.crashed += 1
    figures.inputs += 1
    figures.slowest = max(figures.slowest, seconds)
    figures.outside += [f"{target.name} {number}: {note}" for note in GUARD.notes]
    GUARD.notes.clear()
    shutil.rmtree(folder)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
