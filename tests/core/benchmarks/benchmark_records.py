"""Records as a run of the quality benchmark leaves them, without the run."""

from __future__ import annotations

import json
from dataclasses import asdict

from benchmarks import quality

SHARES = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
BEFORE = 0.8


def write(
    task: quality.Task,
    share: float | tuple[float | None, ...],
    distance: float,
    *,
    drifts: tuple[float, float] = (0.0, 0.0),
    rise: float = 0.0,
    passes: int = 100,
) -> None:
    """The record of a task.

    Args:
        share: UA, IRA and CRA; one number for all three.
        drifts: what the alignment of train and of test prompts has changed by.
        rise: the share of steps that raised a loss.
        passes: denoiser passes for unlearning; ten more are for drawing.
    """
    shares = share if isinstance(share, tuple) else (share,) * len(SHARES)
    before = {"retain_train": BEFORE, "retain_test": BEFORE}
    after = {side: BEFORE + drift for side, drift in zip(before, drifts, strict=True)}
    figures = dict(zip(SHARES, shares, strict=True))
    record = {
        "settings": asdict(task.settings),
        "concept": {"name": task.concept},
        "seed": task.seed,
        "before": {**dict.fromkeys(SHARES, 0.5), "alignment": before},
        "after": {**figures, "cross_domain_forget": 0.4, "alignment": after},
        "retain_distance": distance,
        "rise_share": rise,
        "cost": {"denoiser_passes": {"drawing": 10, "unlearning": passes}},
        "cpu_seconds": 1.0,
        "peak_bytes": 2**30,
        "probes": None,
    }
    task.record.write_text(json.dumps(record), encoding="utf-8")


def tune(method: str, share: float = 0.9) -> None:
    while quality.tuned(method) is None:
        for task in quality.tuning_tasks(method):
            write(task, share, 0.1)


def score(method: str, concepts: tuple[str, ...], share: float) -> None:
    """A little less with each further seed: seeds differ, and so do all methods alike on each."""
    tune(method, share)
    for task in quality.scored_tasks(method, concepts):
        write(task, share - 0.01 * task.seed, 0.1)
