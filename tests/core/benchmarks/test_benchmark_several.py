"""The benchmarks of several concepts and of the rule: their runs and tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rule, several
from demo.jobs import EMOJI
from unlearn_core.unlearning.settings import UnlearnSettings

FIGURES = {
    "unlearning_accuracy": 1.0,
    "in_domain_retain": 1.0,
    "cross_domain_retain": 1.0,
    "alignment_retain_train": 0.8,
    "alignment_retain_test": 0.7,
}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (several, rule):
        monkeypatch.setattr(module, "RESULTS", tmp_path / module.__name__)
        (tmp_path / module.__name__).mkdir()


def write(file: Path, concepts: dict[str, dict[str, float]], **fields: Any) -> None:
    parts = {
        name: {"before": FIGURES, "after": {**FIGURES, **after}} for name, after in concepts.items()
    }
    file.write_text(json.dumps({"concepts": parts, "passes": 2000, **fields}), encoding="utf-8")


def test_no_prompt_names_a_concept_that_is_forgotten_too() -> None:
    forgotten = several.CONCEPTS
    assert len(set(forgotten)) == max(several.COUNTS)
    pairs = several.settings_of(forgotten, UnlearnSettings(), EMOJI, forgotten).pairs()
    assert [part.concept.name for part in pairs.each] == list(forgotten)
    for part, other in itertools.product(pairs.each, pairs.each):
        assert not any(other.concept.is_mentioned_in(pair.retain) for pair in part.train)


def test_the_table_of_several_has_the_mean_and_the_least_forgotten_concept() -> None:
    run = several.Run("ours", several.IN_TURN, 2, 0)
    write(run.record, {"guitar": {"unlearning_accuracy": 0.5}, "cat": {}})
    (row,) = several.table().splitlines()[2:]
    assert row.startswith("| 2 | ours, one after the other | 0.750 | 0.500 | 0.500 | 1.000 |")
    assert row.endswith("| +0.000 | +0.000 | 2,000 | 1 |")


def test_both_rules_differ_in_nothing_else() -> None:
    every = list(rule.runs((0,)))
    for restricted, plain in zip(every[::2], every[1::2], strict=True):
        assert (restricted.rule, plain.rule) == ("restricted", "plain")
        assert restricted.record != plain.record
    first, second = (
        run.settings()
        for run in rule.runs((0,))
        if (run.regime, run.concept) == (rule.USUAL, "cat")
    )
    different = {
        name for name, value in vars(first.unlearn).items() if vars(second.unlearn)[name] != value
    }
    assert different == {"method", "restrict_step"}
    assert first.pairs() == second.pairs()


def test_the_table_of_the_rule_has_paired_differences() -> None:
    usual = [run for run in rule.runs() if run.regime == rule.USUAL]
    for run in usual[:4]:
        worse = {"alignment_retain_test": 0.6} if run.rule == "plain" else {}
        write(run.record, {run.concept: worse}, conflict_share=0.5, rise_share=0.25)
    (row,) = rule.table().splitlines()[2:]
    assert row.startswith("| automatic settings | 0.50 | 0.25 | 1.000 | 1.000 | ")
    assert "| +0.100 (+0.100 to +0.100) | 2 |" in row
