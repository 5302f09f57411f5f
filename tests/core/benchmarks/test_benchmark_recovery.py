"""The benchmark of recovery: what a record lacks, its table and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recovery, recovery_report
from benchmarks.recovery import BEFORE, DEFAULTS, Run, attacks, missing, read, with_efforts
from unlearn_core.unlearning.settings import UnlearnSettings


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(recovery, "RESULTS", tmp_path)
    return tmp_path


def curve(unit: str, **shown: int) -> dict[str, Any]:
    points = [
        {"effort": int(effort[1:]), "label": "", "shown": count, "pictures": 32}
        for effort, count in shown.items()
    ]
    return {"unit": unit, "points": points}


def record(method: str, concept: str, shown: int, **fields: Any) -> dict[str, Any]:
    after = {
        "unlearning_accuracy": 1 - shown / 64,
        "in_domain_retain": 1.0,
        "cross_domain_retain": 0.5,
        "concept_shown": shown,
        "pictures": 64,
    }
    return {"task": f"{concept}-{method}", "method": method, "after": after, **fields}


def test_a_run_continues_with_the_attacks_that_its_record_lacks(results: Path) -> None:
    wanted = attacks(bar=False)
    assert missing(None, wanted) == wanted
    curves = {each.name: curve(each.unit, **{f"e{e}": 1 for e in each.efforts}) for each in wanted}
    complete = {"curves": curves}
    assert missing(complete, wanted) == []
    curves["textual inversion"]["points"].pop()
    (remaining,) = missing(complete, wanted)
    assert remaining.name == "textual inversion"
    assert missing(complete, attacks(bar=True)) == [], "it has the points of the bar"
    assert missing(complete, [with_efforts(remaining, (600,))])


def test_the_bar_names_attacks_that_exist() -> None:
    assert {each.name: each.efforts[0] for each in attacks(bar=True)} == recovery.BAR


def test_a_record_of_other_settings_does_not_count(results: Path) -> None:
    run = Run(DEFAULTS, "ink", 0)
    settings = json.loads(json.dumps(vars(UnlearnSettings())))
    run.record.write_text(json.dumps({"settings": settings}))
    assert read(run)
    run.record.write_text(json.dumps({"settings": {**settings, "steps": 7}}))
    assert read(run) is None
    assert Run(BEFORE, "ink", 0).settings is None


def test_the_table_and_the_picture_show_means_over_the_concepts(results: Path) -> None:
    inversion, images = "textual inversion", "image to image, neutral prompt"
    for concept, after in (("ink", 0), ("cat", 16)):
        curves = {
            inversion: curve("steps", e60=after, e200=32),
            images: curve("% noise", e30=32, e50=16),
        }
        for method, shown in ((BEFORE, 64), (DEFAULTS, 0)):
            file = results / f"{concept}-{method}.json"
            file.write_text(json.dumps(record(method, concept, shown, curves=curves)))
    lines = recovery_report.table(results).splitlines()
    assert lines[2] == "| before unlearning | 2 | 1.000 | 1.000 | 0.500 | 0.000 |"
    assert lines[3] == "| ours, defaults | 2 | 0.000 | 1.000 | 0.500 | 0.750 |"
    assert lines[-2] == "| textual inversion | 60 / 200 steps | 0.25 / 1.00 | 0.25 / 1.00 |"
    assert lines[-1] == f"| {images} | 30 / 50 % noise | 1.00 / 0.50 | 1.00 / 0.50 |"
    ours = recovery_report.records(results)[DEFAULTS]
    assert recovery_report.mean_curve(ours, inversion) == {0: 0, 60: 0.25, 200: 1}
    recovery_report.plot(results, results / "curves.png")
    assert (results / "curves.png").read_bytes().startswith(b"\x89PNG")
