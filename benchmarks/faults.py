"""What survives a kill of the command line: ``python -m benchmarks.faults``.

A job of the demo model is killed (SIGKILL) at a random moment and started again with the same
command. Every second job begins in a folder with the complete result of an earlier one. After each
kill, the files that it left behind are opened; after the second run, its weights are compared with
those of an uninterrupted run, bit for bit. Each kill writes a JSON record into
``benchmarks/results/faults``, and a kill with a record is skipped, so the benchmark can be
interrupted. ``--table`` prints the counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from benchmarks.quality import write_record
from demo.jobs import EMOJI
from demo.world import BACKGROUNDS, OBJECTS, STYLES
from unlearn_core.foundation.finite import non_finite
from unlearn_core.job.console import say
from unlearn_core.job.job import REPORT, RESUME, TENSORS
from unlearn_core.saving.resume import stored_steps

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults"
ROOM = ROOT / ".build" / "faults"
KILLS = 140
SETTINGS: dict[str, Any] = {
    "model": str(EMOJI),
    "concept": {"name": "ink", "kind": "style", "replacements": [s for s in STYLES if s != "ink"]},
    "prompts": {
        "templates": ["a {object} in {concept} style on a {background} background"],
        "dimensions": {"object": OBJECTS[:12], "background": BACKGROUNDS},
        "train_count": 12,
        "test_count": 4,
    },
    "generation": {"steps": 6},
    "unlearn": {"steps": 12, "batch_size": 4, "picture_pairs": 12, "picture_steps": 6},
    "evaluation": {"pictures": 8, "generation": {"steps": 6}},
}
EARLIER_SEED = 1  # of the complete result that a run may find in its folder
MODEL = Path("model") / "unet" / "diffusion_pytorch_model.safetensors"
STARTING = "starting"
SECONDS = 900  # after which a run counts as hanging
COUNTS = ("files broken", "results lost", "steps repeated", "weights unequal")


def command(room: Path, settings: Path) -> list[str]:
    """The command of a job, with its own output folder and its own cache."""
    folders = ["--out", str(room / "out"), "--cache", str(room / "cache")]
    return [sys.executable, "-m", "unlearn_core", "run", str(settings), *folders]


def start(room: Path, settings: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as sink:
        return subprocess.Popen(
            command(room, settings), cwd=ROOT, env=environment, stdout=sink, stderr=sink
        )


def finish(room: Path, settings: Path) -> float:
    """Run a job to its end; returns its duration in seconds.

    Raises:
        RuntimeError: it fails.
    """
    begun, log = time.monotonic(), room / "log.txt"
    process = start(room, settings, log)
    if process.wait(SECONDS):
        raise RuntimeError(f"{log} ends: {log.read_text(errors='replace')[-500:]}")
    return time.monotonic() - begun


def weights(file: Path) -> str:
    """Hash of all tensors of a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def results(room: Path) -> dict[str, str]:
    """The hashes of a job's results, by their names in the output folder."""
    out = room / "out"
    return {str(name): weights(out / name) for name in (TENSORS, MODEL) if (out / name).exists()}


def prepare() -> tuple[dict[str, Any], dict[str, Any]]:
    """The uninterrupted run and the earlier one: duration and hashes. Performed once."""
    runs = []
    for name, seed in (("reference", 0), ("earlier", EARLIER_SEED)):
        room = ROOM / name
        file = room / "run.json"
        if not file.exists():
            shutil.rmtree(room, ignore_errors=True)
            room.mkdir(parents=True)
            settings = settings_file(seed)
            seconds = finish(room, settings)
            file.write_text(json.dumps({"seconds": seconds, "weights": results(room)}))
        runs.append(json.loads(file.read_text()))
    return runs[0], runs[1]


def settings_file(seed: int) -> Path:
    file = ROOM / f"settings-{seed}.json"
    content = {**SETTINGS, "unlearn": {**SETTINGS["unlearn"], "seed": seed}}
    file.write_text(json.dumps(content))
    return file


def broken_files(folder: Path) -> Iterator[str]:
    """The visible files that cannot be opened, or that contain NaN."""
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not file.is_file():
            continue
        try:
            fault = _fault(file)
        except (OSError, ValueError, SyntaxError, SafetensorError) as error:
            fault = str(error) or type(error).__name__
        if fault:
            yield f"{file.relative_to(folder)}: {fault}"


def _fault(file: Path) -> str:
    if file.suffix == ".safetensors":
        return non_finite(load_file(file).items())
    if file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".png":
        with Image.open(file) as image:
            image.load()
    elif file.suffix == ".html" and not file.read_text("utf-8").rstrip().endswith("</html>"):
        return "it ends early"
    return "" if file.stat().st_size else "it is empty"


def hidden_files(folder: Path) -> list[str]:
    """What an interrupted write has left behind."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob(".*"))


def phase(log: Path) -> str:
    """The phase in which a run was killed: that of its last progress bar."""
    lines = re.split(r"[\r\n]", log.read_text(errors="replace"))
    names = [line.partition(":")[0].strip() for line in lines if "%|" in line]
    return names[-1] if names else STARTING


def kill(index: int, reference: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Kill one job and start it again; returns the record."""
    room, over_result = ROOM / f"kill-{index}", index % 2 == 1
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    if over_result:
        shutil.copytree(ROOM / "earlier" / "out", room / "out")
    settings, log = settings_file(0), room / "killed.txt"
    share = random.Random(index).random()
    process = start(room, settings, log)
    try:
        process.wait(share * reference["seconds"])
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    broken = [*broken_files(room)]
    left = results(room) if not broken else {}
    # Each of the two results is the earlier or the new one; they are replaced one after the other.
    known = [reference["weights"], *([earlier["weights"]] if over_result else [])]
    lost = over_result and not broken and left.keys() != reference["weights"].keys()
    other = any(value not in [each[name] for each in known] for name, value in left.items())
    stored = len(stored_steps(room / "out" / RESUME) or ())
    try:
        finish(room, settings)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"index": index, "failed": str(error)}
    report = json.loads((room / "out" / REPORT).read_text(encoding="utf-8"))
    record = {
        "index": index,
        "share": round(share, 4),
        "phase": phase(log),
        "over_result": over_result,
        "stored_steps": stored,
        "resumed_at": report["resumed_at"] or 0,
        "broken": broken,
        "lost": lost or other,
        "unequal": results(room) != reference["weights"],
        "left_over": hidden_files(room),
    }
    shutil.rmtree(room)
    return record


def records() -> list[dict[str, Any]]:
    files = [RESULTS / f"kill-{index:03}.json" for index in range(KILLS)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def counts(record: dict[str, Any]) -> dict[str, int]:
    """The faults of one kill."""
    if "failed" in record:
        return {"results lost": 1}
    return {
        "files broken": len(record["broken"]),
        "results lost": int(record["lost"]),
        "steps repeated": max(0, record["stored_steps"] - record["resumed_at"]),
        "weights unequal": int(record["unequal"]),
    }


def table() -> str:
    """The faults by phase of the kill."""
    phases: dict[str, list[dict[str, Any]]] = {}
    for record in records():
        phases.setdefault(record.get("phase", "failed"), []).append(record)
    lines = [
        f"| killed while | kills | continued from a step | {' | '.join(COUNTS)} |",
        "| --- |" + " --- |" * (len(COUNTS) + 2),
    ]
    phases["**all**"] = records()
    for name, found in phases.items():
        total: Counter[str] = Counter()
        for record in found:
            total.update(counts(record))
        continued = sum(record.get("resumed_at", 0) > 0 for record in found)
        cells = " | ".join(str(total[name]) for name in COUNTS)
        lines.append(f"| {name} | {len(found)} | {continued} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the counts, run nothing")
    parser.add_argument("--kills", type=int, default=KILLS, help="(%(default)s)")
    options = parser.parse_args()
    if options.table:
        say(table())
        return
    ROOM.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    reference, earlier = prepare()
    say(f"a run takes {reference['seconds']:.0f} s")
    for index in range(options.kills):
        file = RESULTS / f"kill-{index:03}.json"
        if not file.exists():
            record = kill(index, reference, earlier)
            write_record(record, file)
            say(f"{index}: {record}")


if __name__ == "__main__":
    main()
