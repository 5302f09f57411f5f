"""The tables of ``docs/faults.md`` from the records of the three benchmarks of faults."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults_chain import PHASES, RESULTS, ROOT, STEPS, Record, records
from benchmarks.pages import put_block

PAGE = ROOT / "docs" / "faults.md"
COMMAND_LINE, SERVER = JOBS = ("command-line", "server")  # in the names of records
KILL, UNLEARNING = "kill", "unlearning"
REQUESTS = ("Ctrl+C", "Cancel")
ENDS = (-9, -2, 0, 130, "killed", "interrupted", "success")  # of stopped runs
POWER = RESULTS / "power.json"
ALL = "**all**"


def repeated(record: Record) -> int:
    """The steps that a run has taken although they were stored."""
    before, begun = record["stored_before"], record["resumed_at"] or 0
    again = max(0, before - begun) if record["step"] > begun else 0
    stored = record.get("stored")
    return again + (0 if stored is None else max(0, before - stored))


def stops_table() -> str:
    """How often the jobs were stopped in each phase, and the faults."""
    chains = {name: [*records(name)] for name in JOBS}
    stops = {name: [stop for c in found for stop in c["stops"]] for name, found in chains.items()}
    lines = [
        "| stopped during | kills, command line | Ctrl+C | kills, server | Cancel | files broken "
        "| results lost | steps repeated |",
        "| --- |" + " --- |" * 7,
    ]
    for phase in (*PHASES, ALL):
        rows = {name: [s for s in of if _is_in(s, phase)] for name, of in stops.items()}
        each = [stop for of in rows.values() for stop in of]
        counts = [
            sum(stop["stop"] == kind for stop in of)
            for of, request in zip(rows.values(), REQUESTS, strict=True)
            for kind in (KILL, request)
        ]
        faults = [
            sum(len(stop["broken"]) for stop in each),
            sum(len(stop["lost"]) for stop in each),
            sum(repeated(stop) for stop in each),
        ]
        lines.append(_row(phase, *counts, *faults))
    ended = [chain["last"] for of in chains.values() for chain in of]
    in_steps = [s for of in stops.values() for s in of if s["phase"] == UNLEARNING]
    facts = {
        "Jobs of the command line, stopped in this way until they ended": len(chains[COMMAND_LINE]),
        "Workflows on the server": len(chains[SERVER]),
        "Results with other weights than those of an uninterrupted run": sum(
            len(chain["unequal"]) for of in chains.values() for chain in of
        ),
        "Runs that failed by themselves": sum(bool(last["failure"]) for last in ended)
        + sum(stop["status"] not in ENDS for of in stops.values() for stop in of),
        "Steps repeated in their last part": sum(map(repeated, ended)),
        "Hidden files left at the end": sum(len(last["left_over"]) for last in ended),
        f"Most steps since the last stored state, of {STEPS}, that a kill cost": max(
            (stop["step"] - (stop["stored"] or 0) for stop in in_steps if stop["stop"] == KILL),
            default=0,
        ),
        "Stops that came too late, not counted above": sum(
            not _is_in(stop, ALL) for of in stops.values() for stop in of
        ),
    }
    return "\n".join([*lines, "", *(f"- {name}: {count}" for name, count in facts.items())])


def seconds_table() -> str:
    """The time until a stop takes effect."""
    lines = [
        "| stopped during | Ctrl+C, median | worst | CPU time, worst | Cancel, median | worst |",
        "| --- |" + " --- |" * 5,
    ]
    stops = [stop for name in JOBS for chain in records(name) for stop in chain["stops"]]
    for phase in (*PHASES, ALL):
        rows = [stop for stop in stops if _is_in(stop, phase)]
        control, cancel = ([s for s in rows if s["stop"] == request] for request in REQUESTS)
        lines.append(
            _row(
                phase,
                *_median_and_worst([stop["seconds"] for stop in control]),
                _median_and_worst([stop["cpu_seconds"] for stop in control])[1],
                *_median_and_worst([stop["seconds"] for stop in cancel if "seconds" in stop]),
            )
        )
    return "\n".join(lines)


def power_table() -> str:
    """Power failures at every moment of a save."""
    rows = json.loads(POWER.read_text(encoding="utf-8"))["saves"]
    names = ("moments", "disks", "broken", "lost")
    lines = [
        "| save | moments | states of the disk | files broken | results lost |",
        "| --- |" + " --- |" * len(names),
    ]
    lines += [_row(row["save"], *(row[name] for name in names)) for row in rows]
    return "\n".join([*lines, _row(ALL, *(sum(row[name] for row in rows) for name in names))])


def blocks() -> dict[str, str]:
    """The generated parts of the page by name."""
    return {"stops": stops_table(), "seconds": seconds_table(), "power": power_table()}


def write(page: Path = PAGE) -> None:
    for name, text in blocks().items():
        put_block(page, name, text)


def _is_in(stop: Record, phase: str) -> bool:
    return stop["phase"] in (PHASES if phase == ALL else [phase])


def _median_and_worst(seconds: Sequence[float]) -> tuple[str, str]:
    if not seconds:
        return "", ""
    return f"{statistics.median(seconds):.1f} s", f"{max(seconds):.1f} s"


def _row(*cells: object) -> str:
    texts = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
    return f"| {' | '.join(texts)} |"
