"""Run every check in its own process, in parallel, and print a summary. `python run.py test` sets
everything up and calls this.

python tests/run_all.py [pytest arguments, or some of the paths tests/…]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / ".build"

CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
# Started in this order, the longest first, so that none runs alone for long at the end. The live
# tests are separate from those of the nodes, because in one process our `nodes` package would hide
# ComfyUI's nodes.py.
TIERS = {
    "live": ["tests/comfyui"],
    "checkpoints": ["tests/checkpoints/test_against_comfyui.py"],
    "core": [
        *(
            f"tests/core/{room}"
            for room in (
                "dataset",
                "evaluation",
                "foundation",
                "judging",
                "models",
                "prompts",
                "reporting",
                "saving",
            )
        ),
        *(f"tests/core/{file.name}" for file in sorted(Path(__file__).parent.glob("core/test_*"))),
    ],
    "runs": ["tests/core/job", "tests/core/unlearning", "tests/core/demo"],
    "nodes": ["tests/nodes"],
    "benchmarks": ["tests/core/benchmarks"],
}
# Run alone: a server with a full-size model needs almost all the memory of a common machine.
LARGE = {"full-size": ["tests/checkpoints/test_in_the_server.py"]}
# Two take up to 19 GB: the full-size checkpoints and the live tests.
SIDE_BY_SIDE = min(4, os.cpu_count() or 1)
NO_TESTS_FOUND = 5  # pytest's exit status
Outcome = str | Counter[str]


def run_module(name: str, command: Sequence[str], threads: int) -> int:
    """Run a module, and print each line of its output immediately, after the task's name."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    if name == "pyright":  # it needs the folder of ComfyUI's modules; the tests find it themselves
        environment["PYTHONPATH"] = os.environ.get("COMFYUI_PATH", "")
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(f"{name:<12}| {line.rstrip()}", flush=True)
    return child.returncode


def side_by_side(tasks: Mapping[str, Callable[[], Outcome]], count: int) -> dict[str, Outcome]:
    """Start all tasks in their order, ``count`` at a time, and return their outcomes."""
    with ThreadPoolExecutor(count) as pool:
        running = {name: pool.submit(task) for name, task in tasks.items()}
    return {name: future.result() for name, future in running.items()}


def run_check(name: str) -> Outcome:
    return "ok" if run_module(name, CHECKS[name], 1) == 0 else "FAILED"


def run_pytest(
    name: str, arguments: Sequence[str], places: Sequence[str], threads: int = 1
) -> Outcome:
    """Run a tier.

    Args:
        threads: number of OpenMP threads.
    """
    record = RECORDS / f"pytest-{name}.xml"
    record.parent.mkdir(exist_ok=True)
    record.unlink(missing_ok=True)
    begun = time.monotonic()
    status = run_module(name, ["pytest", f"--junitxml={record}", *arguments, *places], threads)
    counts: Counter[str] = Counter()
    if record.exists():
        for suite in ElementTree.parse(record).getroot().iter("testsuite"):
            counts["failed"] += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            counts["skipped"] += int(suite.get("skipped", 0))
            counts["passed"] += int(suite.get("tests", 0))
        counts["passed"] -= counts["failed"] + counts["skipped"]
    empty = status == NO_TESTS_FOUND and bool(arguments)  # `-k` may leave a tier empty
    if status != 0 and not counts["failed"] and not empty:
        counts["failed"] = 1  # pytest itself failed
    counts["seconds"] = round(time.monotonic() - begun)
    return counts


def select_places(tier: Sequence[str], selection: Sequence[str]) -> list[str]:
    """The selected places of a tier; all of them if the selection is empty."""
    whole = [place for place in tier if not selection or place.startswith(tuple(selection))]
    parts = [place for place in selection if place.startswith(tuple(tier))]
    return list(dict.fromkeys(whole + parts))


def as_text(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return outcome
    skipped = f", {outcome['skipped']} skipped" if outcome["skipped"] else ""
    seconds = f" ({outcome['seconds']} s)" if outcome["seconds"] else ""
    return f"{outcome['passed']} passed, {outcome['failed']} failed{skipped}{seconds}"


def main(arguments: list[str]) -> int:
    os.environ.update(MPLBACKEND="Agg", HF_HUB_OFFLINE="1")
    selection = [argument for argument in arguments if argument.startswith("tests/")]
    others = [argument for argument in arguments if argument not in selection]
    places = {name: select_places(tier, selection) for name, tier in {**TIERS, **LARGE}.items()}
    tasks: dict[str, Callable[[], Outcome]] = {
        name: partial(run_pytest, name, others, places[name]) for name in TIERS if places[name]
    }
    tasks.update({name: partial(run_check, name) for name in CHECKS})
    summary = side_by_side(tasks, SIDE_BY_SIDE)
    for name in LARGE:
        if places[name]:
            summary[name] = run_pytest(name, others, places[name], threads=os.cpu_count() or 1)

    print("\n== summary")
    for name, outcome in summary.items():
        print(f"{name:<12}  {as_text(outcome)}")
    counts = [outcome for outcome in summary.values() if isinstance(outcome, Counter)]
    totals = sum(counts, Counter[str]())
    del totals["seconds"]  # tiers run in parallel
    print(as_text(totals), flush=True)
    ok = totals["passed"] and not totals["failed"] and "FAILED" not in summary.values()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
