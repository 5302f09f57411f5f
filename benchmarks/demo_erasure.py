"""The README's table: erase a style, an object and a digit from the demo models, three seeds each.

``python -m benchmarks.demo_erasure`` writes one JSON record a finished run to
``benchmarks/results/demo_erasure`` (what has its record is not run again) and prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from demo.erase import job_settings
from unlearn_core.cli import CACHE, Bars, say
from unlearn_core.dataset import LatentCache
from unlearn_core.job import Job
from unlearn_core.settings import EvaluationSettings, UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "demo_erasure"
CONCEPTS = ("ink", "cat", "three")
SEEDS = (0, 1, 2)
COLUMNS = ("UA", "IRA", "CRA", "alignment")


def run(concept: str, unlearn: UnlearnSettings, pictures: int, folder: Path) -> dict[str, Any]:
    """One erasure; returns the contents of its report, without the steps."""
    settings = job_settings(concept, unlearn)
    settings = replace(settings, evaluation=EvaluationSettings(pictures=pictures))
    bars = Bars()
    job = Job(settings, folder, cache=LatentCache(CACHE), on_progress=bars)
    job.evaluate(job.unlearn())
    bars.close()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    conflicts = [step["conflict"] for step in report.pop("steps")]
    return {**report, "conflict_share": sum(conflicts) / len(conflicts)}


def figures(side: dict[str, Any]) -> dict[str, float | None]:
    return {
        "UA": side["unlearning_accuracy"],
        "IRA": side["in_domain_retain"],
        "CRA": side["cross_domain_retain"],
        "alignment": side["alignment"]["retain_test"],
    }


def table(records: list[dict[str, Any]]) -> str:
    """Before and after, mean and spread (largest minus smallest) over the seeds, in Markdown."""
    lines = [
        "| forget | method | | " + " | ".join(COLUMNS) + " |",
        "| --- | --- | --- |" + " --- |" * len(COLUMNS),
    ]
    groups = dict.fromkeys((r["concept"]["name"], r["settings"]["method"]) for r in records)
    for concept, method in groups:
        chosen = [
            r
            for r in records
            if (r["concept"]["name"], r["settings"]["method"]) == (concept, method)
        ]
        for side in ("before", "after"):
            cells = []
            for column in COLUMNS:
                values = [figures(record[side])[column] for record in chosen]
                known = [value for value in values if value is not None]
                cells.append(
                    f"{statistics.mean(known):.3f} ± {(max(known) - min(known)) / 2:.3f}"
                    if known
                    else "–"
                )
            first = f"{concept} | {method}" if side == "before" else " | "
            lines.append(f"| {first} | {side} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_erasure", description=__doc__)
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS)
    parser.add_argument("--methods", nargs="+", default=("restricted gradient", "GradDiff"))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--pictures", type=int, default=64)
    options = parser.parse_args()
    records = []
    for concept in options.concepts:
        for method in options.methods:
            for seed in options.seeds:
                unlearn = replace(
                    UnlearnSettings(),
                    method=method,
                    restrict_step=method == UnlearnSettings.method,
                    seed=seed,
                )
                name = f"{concept}-{method.replace(' ', '-')}-{seed}"
                file = RESULTS / f"{name}.json"
                done = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
                wanted = asdict(job_settings(concept, unlearn).unlearn)
                if done is None or done["settings"] != wanted:
                    done = run(
                        concept, unlearn, options.pictures, Path(".build") / "erasure" / name
                    )
                    RESULTS.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
                records.append(done)
    say(table(records))


if __name__ == "__main__":
    main()
