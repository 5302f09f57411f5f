"""What the benchmark on digits concludes from its records; the runs themselves take hours."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import digits, digits_report
from demo.digits import DIGITS
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.job.settings_file import JobSettings
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.settings import UnlearnSettings


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digits, "RESULTS", tmp_path)
    return tmp_path


def write(task: digits.Task, ua: float, ra: float, fid: float) -> None:
    figures = {"ua": ua, "ra": ra, "fid": fid, "rise_share": 0.25}
    record = {"settings": asdict(task.settings), **figures}
    task.record.write_text(json.dumps(record), encoding="utf-8")


def tune(method: str, best: int = 0) -> None:
    for i, task in enumerate(digits.tuning(method)):
        write(task, 1.0 if i == best else 0.5, 0.9, 5.0)


def test_the_search_takes_the_best_mean_and_then_the_lowest_fid() -> None:
    first, second, third, *others = digits.tuning("RG")
    assert {task.digit for task in (first, second, third, *others)} == {digits.TUNED_ON}
    for task in others:
        assert digits.scored("RG") == [], "the search is not complete"
        write(task, 0.5, 1.0, 1.0)
    write(first, 0.9, 0.9, 5.0)
    write(second, 1.0, 0.8, 3.0)
    write(third, 1.0, 0.7, 1.0)
    assert digits.tuned("RG") == second.settings


@pytest.mark.parametrize(("method", "sets"), [("RGD", 3), ("SalUn", 2)])
def test_every_digit_is_scored_with_the_tuned_settings(method: str, sets: int) -> None:
    tune(method, best=3)
    chosen = digits.tuned(method)
    assert chosen is not None
    tasks = digits.scored(method)
    assert len(tasks) == len({task.record for task in tasks}) == sets * len(DIGITS)
    seeds = [(task.retain, task.settings.seed) for task in tasks]
    assert seeds.count((digits.BALANCED, 0)) == seeds.count((digits.BALANCED, 1)) == len(DIGITS)
    for task in tasks:
        assert task.settings.learning_rate == chosen.learning_rate
        assert task.settings.retain_weight == chosen.retain_weight


def test_the_whole_retain_set_is_what_makes_rg_rgd() -> None:
    rg, rgd = (digits.tuning(method)[0].settings for method in ("RG", "RGD"))
    assert (rg.retain_batch_factor, rgd.retain_batch_factor) == (1, 0)


def test_a_record_of_other_settings_is_not_taken_for_this_run() -> None:
    task, other = digits.tuning("RG")[:2]
    write(task, 1.0, 1.0, 1.0)
    other.record.write_bytes(task.record.read_bytes())
    assert task.read() is not None
    assert other.read() is None


def test_a_run_leaves_the_figures_of_the_model_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step that leaves nothing of the model, and one that changes nothing."""
    monkeypatch.setattr(digits, "PICTURES", 3)
    monkeypatch.setattr(digits, "CACHE", tmp_path / "cache")
    whole = digits.job_settings

    def small(digit: str, unlearn: UnlearnSettings) -> JobSettings:
        settings = whole(digit, unlearn)
        return replace(settings, prompts=replace(settings.prompts, train_count=4, test_count=2))

    monkeypatch.setattr(digits, "job_settings", small)
    base = load_model(digits.DIGITS_MODEL)
    judge = ConvJudge.load(digits.DIGITS_MODEL / "evaluation")
    learnt: list[set[str]] = []
    make = digits.make_training_sets

    def sets(model: ModelHandle, pairs: PromptPairs, *given: Any, **more: Any) -> TrainingSets:
        learnt.append({pair.replacement for pair in pairs.train})
        return make(model, pairs, *given, **more)

    monkeypatch.setattr(digits, "make_training_sets", sets)
    found = {}
    for rate, weight in ((1.0, 0.0), (1e-12, 1.0)):  # with a weight of 0, nothing is undone
        settings = digits.settings_of("ours", rate, weight, 0)
        settings = replace(settings, steps=1, batch_size=2)
        task = digits.Task("ours", "seven", digits.TWO, settings)
        digits.perform(task, base, judge)
        found[rate] = task.read()
    wrecked, same = found.values()
    assert wrecked is not None
    assert same is not None
    assert same["ua"] < 0.5 < same["ra"]
    assert wrecked["ra"] < same["ra"] - 0.3
    assert wrecked["fid"] > 2 * same["fid"]
    assert wrecked["rise_share"] == 0, "the step is restricted"
    assert learnt == [{"zero", "one"}] * 2, "of two classes"
    untouched = digits.measure(base, judge, "seven")
    assert {name: same[name] for name in untouched} == pytest.approx(untouched, abs=1e-3)


def test_gains_are_told_digit_by_digit_beside_the_paper_s() -> None:
    for method in ("RGD", "RG"):
        tune(method)
    pairs = zip(digits.scored("RGD"), digits.scored("RG"), strict=True)
    for i, (winner, loser) in enumerate(pairs):
        if winner.retain != digits.BALANCED or winner.digit == DIGITS[4]:
            continue  # without both a digit counts for neither
        write(winner, 1.0, 0.9, 4.0)
        if winner.settings.seed == 0:
            write(loser, 0.7 + 0.1 * (i % 2), 0.95, 5.0)
        elif winner.digit == DIGITS[1]:  # two runs, but one digit
            write(loser, 0.9, 0.95, 5.0)
    (line,) = (line for line in digits_report.against_paper().splitlines() if "less RG " in line)
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == "RGD, less RG"
    assert cells[1].startswith("+0.239 ± 0.020")  # four times 0.3, four times 0.2, once 0.15
    assert cells[2:4] == ["-0.050 ± 0.000", "**worse** (< 0.0001; Holm < 0.0001)"]
    assert cells[4] == "-1.00 ± 0.00"
    assert cells[5].startswith("**better**"), "a lower distance"
    assert cells[6:] == ["+0.000", "+0.019", "-3.27"]


def test_the_order_is_told_beside_the_paper_s() -> None:
    figures = {"RGD": (0.9, 5.0), "RG": (0.8, 9.0), "GradDiff": (0.7, 8.0), "SalUn": (0.6, 10.0)}
    for method, (ra, fid) in figures.items():
        assert "when all digits are scored" in digits_report.order_of_paper()
        tune(method)
        for task in digits.scored(method):
            write(task, 1.0, ra, fid)
    assert digits_report.order_of_paper().endswith("scored with fine-tune.")
    tune("fine-tune")
    for task in digits.scored("fine-tune"):
        write(task, 0.0, 1.0, 1.0)
    of_ra, of_fid = digits_report.order_of_paper().split(" FID")
    assert of_ra == (
        "RA, best first: here RGD, RG, GradDiff, SalUn; in the paper RGD, RG, GradDiff, SalUn: "
        "the same order."
    )
    assert "here RGD, GradDiff, RG, SalUn; in the paper RGD, RG, GradDiff" in of_fid
    assert "**another order**" in of_fid


def test_the_table_counts_the_runs_of_the_digits_it_is_given() -> None:
    tune("RG")
    for i, task in enumerate(digits.scored("RG")):
        write(task, i % 10 / 10, 0.9, 4.0)
    before = {digit: {"ua": i / 10, "ra": 1.0, "fid": 1.0} for i, digit in enumerate(DIGITS)}
    few = digits_report.table(digits.BALANCED, DIGITS[:2], before).splitlines()
    assert few[2].startswith("| *before* | 2 | 0.050 | 1.000 | 1.00 |")
    assert few[3] == (
        "| RG | 4 of 4 | 0.050 ± 0.071 (0.000) | 0.900 ± 0.000 (0.000) "
        "| 4.00 ± 0.00 (0.00) | 0.25 ± 0.00 (0.00) |"
    )


def test_the_search_s_table_marks_what_it_chose() -> None:
    tune("RG", best=2)
    lines = digits_report.search_table().splitlines()[2:]
    assert len(lines) == len(digits.RATES) * len(digits.WEIGHTS)
    assert [line.startswith("| **RG** |") for line in lines] == [i == 2 for i in range(6)]
    assert lines[2] == "| **RG** | 0.0002 | 1 | 1.000 | 0.900 | 5.00 |"
