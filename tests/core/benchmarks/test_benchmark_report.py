"""What the quality benchmark's tables say of its records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import comparisons, quality, quality_report
from benchmarks.comparisons import RG, Question, answer, answers, full_table
from benchmarks.methods import METHODS

from .benchmark_records import score, tune, write

UCE = "UCE"


def against_uce(concepts: tuple[str, ...]) -> str:
    """The row that holds ours against UCE alone."""
    question = Question("one", "One pair", (("ours", UCE),), concepts)
    return full_table(answer(question)).splitlines()[-1]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("shares", "mean"),
    [
        ((1.0, 0.5, 0.25), 3 / 7),
        ((0.5, 1.0, 0.25), 3 / 7),
        ((0.9, 0.9, 0.9), 0.9),
        ((1.0, None, 0.5), 2 / 3),
        ((0.0, 1.0, 1.0), 0.0),
    ],
)
def test_the_harmonic_mean_is_of_the_shares_there_are(
    shares: tuple[float | None, ...], mean: float
) -> None:
    names = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
    found = quality.harmonic_mean(dict(zip(names, shares, strict=True)))
    assert found == pytest.approx(mean, abs=1e-6)


def test_each_figure_stands_in_its_column() -> None:
    tune("ours")
    (task, *_) = quality.scored_tasks("ours", ("ink",))
    write(task, (0.9, 0.8, 0.7), 0.6, drifts=(-0.01, -0.02), rise=0.3)
    head, _, row = quality_report.table(["ink"]).splitlines()
    cells, names = ([part.strip() for part in line.split("|")[1:-1]] for line in (row, head))
    assert dict(zip(names, cells, strict=True)) == {
        "method": "ours",
        "runs": "1 of 3",
        "UA": "0.900",
        "IRA": "0.800",
        "CRA": "0.700",
        "CRA, forgotten prompts": "0.400",
        "harmonic mean": "0.792",
        "alignment, train": "-0.010",
        "alignment, test": "-0.020",
        "CMMD": "0.600",
        "raised a loss": "0.300",
        "seconds": "1",
        "GiB": "1.0",
    }
    front = quality_report.front_table().splitlines()[-1]
    shares = "0.500 → 0.900 | 0.500 → 0.800 | 0.500 → 0.700"
    assert front == f"| ink | 1 | {shares} | -0.020 |"


@pytest.mark.parametrize(
    ("accuracy", "drifts", "forgotten", "kept"),
    [
        (0.985, (-0.0029, 0.0029), "yes", "yes"),
        (0.975, (0.0, 0.0), "**no**", "yes"),
        (1.0, (-0.004, 0.0), "yes", "**no**"),
        (1.0, (0.0, -0.004), "yes", "**no**"),
        (1.0, (-0.01, 0.01), "yes", "**no**"),  # a mean of both sides would hide it
    ],
)
def test_the_bar_can_be_missed(
    accuracy: float, drifts: tuple[float, float], forgotten: str, kept: str
) -> None:
    tune("ours")
    for task in quality.scored_tasks("ours", ("ink",)):
        write(task, (accuracy, 1.0, 1.0), 0.1, drifts=drifts)
    *_, of_ink, of_all = quality_report.kept_table().splitlines()
    assert of_ink.startswith("| ink | 3 |")
    assert of_all.startswith("| *all* | 3 |")
    assert of_ink.endswith(f"| {forgotten} | {kept} |")
    assert of_all.endswith(f"| {forgotten} | {kept} |")


def test_an_alignment_that_fell_less_is_better() -> None:
    concepts = quality.TIERS["small"]
    for method, drifts in (("ours", (-0.01, -0.02)), (UCE, (-0.03, 0.03))):
        tune(method)
        for task in quality.scored_tasks(method, concepts):
            write(task, 0.9, 0.1, drifts=drifts)
    row = against_uce(concepts)
    certain = "(< 0.0001; Holm < 0.0001)"
    train, test = "+0.0200 ± 0.0000 | **better**", "-0.0500 ± 0.0000 | **worse**"
    assert f"| {train} {certain} | {test} {certain} |" in row


def test_the_steps_that_raised_neither_loss_are_told() -> None:
    tune("ours")
    for task in quality.scored_tasks("ours", ("ink",)):
        write(task, 1.0, 0.1, rise=0.25)
    assert quality_report.bar(answers()).endswith("to first order: ours 75.0%.")


def test_ours_is_held_against_the_others_concept_by_concept() -> None:
    for method, share in (("ours", 1.0), (UCE, 0.9), ("RGD (paper)", 0.7), ("GradDiff", 0.8)):
        score(method, quality.TIERS["small"], share)
    written = quality_report.bar(answers())
    kept = " | ".join(["+0.0000 ± 0.0000 | not significant (1; Holm 1)"] * 3)
    gained = "+0.1000 ± 0.0000 | **better** (< 0.0001; Holm < 0.0001)"
    assert f"| ours, less UCE | 4 | 12 | {gained} | {kept} |" in written
    assert "| RGD (paper), less GradDiff | 4 | 12 | -0.1000 ± 0.0000 | **worse** (" in written
    assert "| ink | 3 | 0.990 (0.010) | +0.000 (0.000) | +0.000 (0.000) | yes | yes |" in written
    assert "| *all* | 12 | 0.990 ± 0.000 (0.010) |" in written
    short = comparisons.short_table(answers()["scored"])
    assert "| ours, less UCE | **+0.1000 ± 0.0000, better** | +0.0000 ± 0.0000 |" in short


def test_a_lower_distance_is_better() -> None:
    concepts = quality.TIERS["small"]
    for method, distance in (("ours", 0.1), (UCE, 0.2)):
        score(method, concepts, 0.9)
        for task in quality.scored_tasks(method, concepts):
            write(task, 0.9, distance)
    row = against_uce(concepts)
    assert row.endswith("| -0.1000 ± 0.0000 | **better** (< 0.0001; Holm < 0.0001) |")


def test_the_tiers_beyond_the_small_one_come_with_their_runs() -> None:
    for method in ("ours", UCE):
        score(method, quality.TIERS["small"], 0.9)
    assert quality_report.unseen_tier(answers()["unseen"]) == quality_report.full_tier() == ()
    for method in ("ours", UCE):
        score(method, quality.TIERS["unseen"][:2], 0.9)
    title, of_methods, of_pairs = quality_report.unseen_tier(answers()["unseen"])
    assert all(concept in title for concept in quality.TIERS["unseen"])
    assert "| ours | 6 of 21 |" in of_methods
    assert "| ours, less UCE | 2 | 6 | +0.0000 ± 0.0000 | too few |" in of_pairs
    assert quality_report.full_tier() == ()
    score("ours", quality.TIERS["full"], 0.9)
    _, full = quality_report.full_tier()
    assert "| ours | 45 of 45 |" in full
    assert "| UCE | 18 of 45 |" in full


def test_what_the_model_never_drew_is_no_part_of_what_comes_back() -> None:
    concepts = quality.TIERS["small"]
    score("ours", concepts, 0.9)
    for i, task in enumerate(t for t in quality.scored_tasks("ours", concepts) if t.probed):
        record = json.loads(task.record.read_text())
        record["probes"] = {"misspellings": {"before": 0.5 if i else 0.0, "after": 0.25}}
        task.record.write_text(json.dumps(record))
    lines = quality_report.probe_table().splitlines()
    assert "| ours | 4 | 0.25 ± 0.00 [3] |" in lines
    assert "| *before unlearning* | 4 | 0.50 ± 0.00 [3] |" in lines


def test_the_rule_and_the_plain_sum_stand_side_by_side_at_equal_settings() -> None:
    for method, share in (("RGD (paper)", 0.7), ("GradDiff", 0.8)):
        score(method, (), share)
    lines = quality_report.rule_table().splitlines()[2:]
    shared = {task.settings.learning_rate for task in quality.tuning_tasks("GradDiff")}
    assert len(lines) >= len(shared)
    assert all("| 0.700 | 0.800 | +0.000 | +0.000 | 0.100 | 0.100 |" in line for line in lines)


def test_the_questions_ask_of_each_pair_once() -> None:
    pairs = [(pair, q.concepts) for q in comparisons.QUESTIONS for pair in q.pairs]
    assert len(pairs) == len(set(pairs))
    of_ours = {other for q in comparisons.QUESTIONS[1:] for mine, other in q.pairs if mine != RG}
    later = {"ESD-u, 2025", "UCE, 2025"}  # beside the versions that they follow, without a test
    assert of_ours == set(METHODS) - {"ours"} - later


def test_the_main_table_has_the_held_out_objects_on_top_and_both_spreads() -> None:
    for method, share in (("ours", 1.0), (UCE, 0.9)):
        score(method, quality.TIERS["small"], share)
        score(method, quality.TIERS["unseen"], share)
    held_out, scored = quality_report.main_table().split("**The four scored concepts")
    assert held_out.startswith("**Held-out objects: fish, bird")
    for part, runs in ((held_out, "21 of 21"), (scored, "12 of 12")):
        lines = part.splitlines()
        assert any(line.startswith("| *before unlearning* | | 0.500 ± 0.000") for line in lines)
        assert f"| UCE | {runs} | 0.890 ± 0.000 (0.010) |" in part
