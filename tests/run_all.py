"""Every check in its own process, then one summary. `python run.py test` sets up and calls this.

python tests/run_all.py [pytest arguments, or some of the paths tests/…]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / ".build" / "pytest.xml"

CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
# The live tests apart: in one process our `nodes` package would hide ComfyUI's nodes.py. The server
# with a full-size model apart: what other tests leave behind would take the memory it needs.
TIERS = {
    "core, nodes": ("tests/core", "tests/nodes"),
    "checkpoints": ("tests/checkpoints/test_against_comfyui.py",),
    "full-size": ("tests/checkpoints/test_in_the_server.py",),
    "comfyui": ("tests/comfyui",),
}
ALONGSIDE = {"core, nodes": f"--numprocesses={min(4, os.cpu_count() or 1)}"}  # of a thread each
NO_TESTS_FOUND = 5  # pytest's exit status


def run_module(*command: str) -> int:
    return subprocess.call([sys.executable, "-m", *command], cwd=ROOT)


def run_pytest(arguments: list[str], places: list[str]) -> Counter[str]:
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.unlink(missing_ok=True)
    status = run_module("pytest", f"--junitxml={RECORD}", *arguments, *places)
    counts: Counter[str] = Counter()
    if RECORD.exists():
        for suite in ElementTree.parse(RECORD).getroot().iter("testsuite"):
            counts["failed"] += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            counts["skipped"] += int(suite.get("skipped", 0))
            counts["passed"] += int(suite.get("tests", 0))
        counts["passed"] -= counts["failed"] + counts["skipped"]
    chose_none = status == NO_TESTS_FOUND and bool(arguments)  # `-k` may leave a tier empty
    if status != 0 and not counts["failed"] and not chose_none:
        counts["failed"] = 1  # pytest itself broke off
    return counts


def as_line(counts: Counter[str]) -> str:
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    return f"{counts['passed']} passed, {counts['failed']} failed{skipped}"


def main(arguments: list[str]) -> int:
    os.environ.update(MPLBACKEND="Agg", HF_HUB_OFFLINE="1")
    summary: dict[str, str] = {}
    for name, command in CHECKS.items():
        print(f"\n== {name}", flush=True)
        summary[name] = "ok" if run_module(*command) == 0 else "FAILED"

    chosen = [argument for argument in arguments if argument.startswith("tests/")]
    others = [argument for argument in arguments if argument not in chosen]
    totals: Counter[str] = Counter()
    for name, folders in TIERS.items():
        places = [
            folder if folder.startswith(place) else place
            for folder in folders
            for place in chosen or folders
            if place.startswith(folder) or folder.startswith(place)
        ]
        places = [place for place in places if (ROOT / place.split("::")[0]).exists()]
        if not places:
            continue
        print(f"\n== tests: {name}", flush=True)
        workers = [ALONGSIDE[name]] if name in ALONGSIDE else []
        counts = run_pytest(others, [*workers, *places])
        totals += counts
        summary[f"tests: {name}"] = as_line(counts)

    print("\n== summary")
    for name, outcome in summary.items():
        print(f"{name:<20}{outcome}")
    print(as_line(totals), flush=True)
    ok = totals["passed"] and not totals["failed"] and "FAILED" not in summary.values()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
