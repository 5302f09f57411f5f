"""The benchmark of looks: its pictures, its runs and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import look
from unlearn_core.unlearning.objectives import REMOVE_LOOK


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(look, "RESULTS", tmp_path)
    return tmp_path


def write(run: look.Run, ua: float, marked: float) -> None:
    side = {
        "unlearning_accuracy": ua,
        "in_domain_retain": None,
        "cross_domain_retain": 0.9,
        "alignment": {"forget": 0.8, "retain_train": 0.8, "retain_test": 0.8},
    }
    record = {
        "before": side,
        "after": side,
        "retain_distance": 0.1,
        "marked": {"before": 0.4, "after": marked},
    }
    run.record.write_text(json.dumps(record), encoding="utf-8")


def test_twins_differ_only_in_the_corner() -> None:
    with_look, without = look.own_pictures(3, 0)
    assert with_look.captions == without.captions
    for one, other in zip(with_look.images, without.images, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        differs = (one != other).any(0)
        assert differs.any()
        assert not differs[:40].any()


def test_the_baselines_have_the_best_rate_of_the_search(results: Path) -> None:
    assert look.tuned(look.OURS, None) == 0
    assert look.tuned(look.FINE_TUNE, None) is None
    for rate, ua in zip(look.RATES, (0.7, 0.9), strict=True):
        run = look.Run(look.FINE_TUNE, look.TWO_SETS, look.COUNTS[0], look.SEARCH_SEED, rate)
        write(run, ua, 0.1)
    assert look.tuned(look.FINE_TUNE, None) == look.RATES[1]
    settings = look.Run(look.FINE_TUNE, look.TWINS, 8, 0, look.RATES[1]).settings
    assert (settings.method, settings.learning_rate) == ("retain only", look.RATES[1])
    assert look.Run(look.OURS, look.TWINS, 8, 0).settings.objective == REMOVE_LOOK


def test_the_table_has_a_row_for_each_finished_choice(results: Path) -> None:
    for seed, marked in zip(look.SEEDS, (0.0, 0.1, 0.2), strict=True):
        write(look.Run(look.OURS, look.TWINS, 8, seed), 1.0, marked)
    assert look.table().splitlines()[2:] == [
        "| | *before unlearning* | 0.400 | 0.900 | 0.800 | – | – |",
        "| twins, 8 | look | 0.100 ± 0.100 | 0.900 ± 0.000 | 0.800 ± 0.000 | 0.100 ± 0.000 | 3 |",
    ]
