"""``python -m tests.fuzz --inputs 1000000``: the long tier of the fuzz tests.

With ``--nodes``, it is that of the routes and the nodes' inputs, which need ComfyUI. Runs in parts
of a few thousand inputs and stores the figures after each, so that a run that is stopped continues
at the same place. The exit status is 1 if an input crashed a parser, took longer than ten seconds,
or wrote outside its folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from .runner import Figures, run
from .targets import TARGETS, Target

PART = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", action="store_true", help="routes and inputs of nodes instead")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--state", type=Path, default=Path("fuzz-state.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    state = _state(options.state, options.seed)
    targets = _node_targets() if options.nodes else TARGETS
    targets = [t for t in targets if options.target in (None, t.name)]
    total, started = sum(target.share for target in targets), os.times().elapsed
    pending = True
    while pending and os.times().elapsed - started < 60 * options.minutes:
        pending = False
        for target in targets:
            figures = state.setdefault(target.name, Figures())
            goal = round(options.inputs * target.share / total)
            count = min(round(PART * min(target.share, 1)) or 1, goal - figures.inputs)
            if count > 0:
                pending = True
                figures += run(target, options.seed, figures.inputs, count)
                _store(options.state, options.seed, state)
    for name, figures in state.items():
        sys.stdout.write(f"{name}: {json.dumps(figures.as_json())}\n")
    everything = Figures()
    for figures in state.values():
        everything += figures
    sys.stdout.write(f"all: {json.dumps(everything.as_json())}\n")
    return int(bool(everything.crashed or everything.outside))


def _node_targets() -> tuple[Target, ...]:
    from .node_targets import NODE_TARGETS  # hides our ``nodes``, which other targets may import

    logging.disable()  # of refused requests
    return NODE_TARGETS


def _state(file: Path, seed: int) -> dict[str, Figures]:
    if not file.exists():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if content["seed"] != seed:
        raise SystemExit(f"{file} is of seed {content['seed']}; choose it, or another --state")
    return {name: Figures(**figures) for name, figures in content["targets"].items()}


def _store(file: Path, seed: int, state: dict[str, Figures]) -> None:
    targets = {name: figures.as_json() for name, figures in state.items()}
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"seed": seed, "targets": targets}, indent=1), encoding="utf-8")
    part.replace(file)


if __name__ == "__main__":
    sys.exit(main())
