"""A chain of stops of one job, which ``benchmarks.faults`` and ``faults_server`` share."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults_files import Hashes, Place
from benchmarks.quality import write_record
from unlearn_core.job.console import say

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults"
PHASES = ("loading", "making images", "first edit", "unlearning", "evaluating", "saving")
AIMS = (*PHASES[:4], *PHASES[3:])  # one stop each, two in the steps
END = "end"  # of a run
AFTER = "after the end"  # the stop came too late
STEPS = 20
EARLIER_SEED = 1  # of the complete result that a chain may find
POLL = 0.01  # seconds
NICE = ("nice", "-n", "5")  # of the stopped process, so that the stop comes in time
JITTER = 0.05  # seconds by which a stop is delayed at most, so that it also hits waits for the disk

Record = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run.

    Attributes:
        beginnings: CPU seconds at the beginning of each phase, and at the end.
        weights: of its results.
        earlier: the same of a run with another seed.
    """

    beginnings: Mapping[str, float]
    weights: Hashes
    earlier: Hashes


@dataclass(frozen=True)
class Moment:
    """When to stop a run.

    Attributes:
        phase: one of ``PHASES``.
        cpu_seconds: after the beginning of the phase.
        delay: seconds after that.
    """

    phase: str
    cpu_seconds: float
    delay: float


def moment(index: int, reference: Reference, stored: int) -> Moment:
    """The random moment of a stop, the same in every call.

    Args:
        stored: the steps that need not be repeated.
    """
    chance, phase = random.Random(index), AIMS[index % len(AIMS)]
    beginnings = reference.beginnings
    following = [*beginnings][[*beginnings].index(phase) + 1]
    seconds = chance.random() * (beginnings[following] - beginnings[phase])
    if phase == "unlearning":
        seconds *= 1 - stored / STEPS
    return Moment(phase, seconds, chance.random() * JITTER)


class Chain:
    """Stops one job in each phase, and lets it end. Every second chain begins with the complete
    result of an earlier job.

    Args:
        place: where the job writes; an empty folder.
        earlier: a folder with the earlier result, by its place below ``place.root``.
        stop: starts the job and stops it at a moment; returns a record with its phase.
        finish: starts the job and lets it end; returns its failure, if any, the step after which
            it continued, and the last step.
    """

    def __init__(
        self,
        place: Place,
        earlier: tuple[Path, str],
        stop: Callable[[int, Moment], Record],
        finish: Callable[[], Record],
    ) -> None:
        self.place, self.earlier, self.stop, self.finish = place, earlier, stop, finish

    def run(self, number: int, reference: Reference) -> Record:
        begun, over_result = time.monotonic(), number % 2 == 1
        place, known = self.place, [reference.weights]
        if over_result:
            source, destination = self.earlier
            shutil.copytree(source, place.root / destination)
            known.append(reference.earlier)
        stops = []
        for index in range(number * len(AIMS), (number + 1) * len(AIMS)):
            before, stored = place.weights(), place.stored() or 0
            record = self.stop(index, moment(index, reference, stored))
            stops.append({**record, **place.examine(before, stored, known)})
            say(f"{index}: {stops[-1]}")
        stored = place.stored() or 0
        last = {**self.finish(), "stored_before": stored, "left_over": place.left_over()}
        unequal = {name for name, _ in place.weights().items() ^ reference.weights.items()}
        return {
            "chain": number,
            "over_result": over_result,
            "stops": stops,
            "last": last,
            "unequal": sorted(unequal),
            "seconds": round(time.monotonic() - begun),
        }


def perform(name: str, chains: int, run: Callable[[int], Record]) -> None:
    """Run the chains without a record, and write their records."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for number in range(chains):
        file = RESULTS / f"{name}-{number:02}.json"
        if not file.exists():
            record = run(number)
            write_record(record, file)
            say(f"{name} {number}: {record['seconds']} s, unequal: {record['unequal']}")


def records(name: str) -> Iterator[Record]:
    for file in sorted(RESULTS.glob(f"{name}-*.json")):
        yield json.loads(file.read_text(encoding="utf-8"))
