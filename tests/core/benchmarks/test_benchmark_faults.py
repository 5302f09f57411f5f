"""The page of the faults benchmarks, and what they count."""

from __future__ import annotations

import json

import pytest

from benchmarks.faults_power import SAVES, cut
from benchmarks.faults_table import PAGE, POWER, blocks, repeated
from benchmarks.power_save import Save
from unlearn_core.foundation import atomic


def test_the_tables_are_those_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, block in blocks().items():
        expected = f"<!-- {name} -->\n\n{block}\n\n<!-- end of {name} -->"
        assert expected in page, "run python -m benchmarks.faults --table"


@pytest.mark.parametrize(
    ("record", "count"),
    [
        ({"stored_before": 8, "resumed_at": 8, "step": 11, "stored": 10}, 0),
        ({"stored_before": 8, "resumed_at": 6, "step": 11, "stored": 10}, 2),
        ({"stored_before": 8, "resumed_at": None, "step": 3, "stored": 8}, 8),
        ({"stored_before": 8, "resumed_at": None, "step": 0, "stored": 8}, 0),  # before the steps
        ({"stored_before": 8, "resumed_at": None, "step": 0, "stored": 6}, 2),
        ({"stored_before": 20, "resumed_at": 20, "step": 20, "stored": None}, 0),  # complete
    ],
)
def test_repeated_steps(record: dict[str, int | None], count: int) -> None:
    assert repeated(record) == count


# Folders have tests of their own, in test_atomic.py.
@pytest.mark.parametrize("save", [s for s in SAVES if s.is_quick], ids=lambda save: save.name)
def test_a_power_failure_breaks_no_file(save: Save) -> None:
    counts = cut(save)
    assert (counts["broken"], counts["lost"]) == (0, 0)
    assert counts["moments"] >= 3


def test_it_finds_a_save_that_does_not_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "sync_tree", lambda _: None)
    (save,) = (save for save in SAVES if save.name == "LoRA over an older one")
    assert cut(save)["broken"] > 0


def test_every_kind_of_save_has_a_record() -> None:
    rows = json.loads(POWER.read_text(encoding="utf-8"))["saves"]
    assert [row["save"] for row in rows] == [save.name for save in SAVES]
