"""The comparison of settings with fewer denoiser passes, and its place in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import passes
from benchmarks.quality import SEEDS, read
from benchmarks.records import recorded_passes
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parents[3] / "docs" / "results.md"
MOST = {passes.AUTOMATIC: 2000, passes.FEWEST: 500, passes.EDIT: 0}


@pytest.fixture(scope="module")
def chosen() -> dict[str, UnlearnSettings]:
    return passes.settings()


@pytest.fixture(scope="module")
def tables() -> list[str]:
    return passes.table().split("\n\n")


def test_the_page_shows_the_present_records(tables: list[str]) -> None:
    page = RESULTS.read_text(encoding="utf-8")
    assert tables[0] == f"{len(passes.CONCEPTS) * len(SEEDS)} runs each"
    for table in tables[1:4:2]:
        assert table in page, "copy the table that python -m benchmarks.passes --table prints"


@pytest.mark.parametrize("name", MOST)
def test_the_settings_need_no_more_passes_than_promised(
    name: str, chosen: dict[str, UnlearnSettings]
) -> None:
    records = [read(task) for task in passes.tasks(name, chosen[name])]
    found = [recorded_passes(record) for record in records if record is not None]
    assert len(found) >= len(passes.CONCEPTS)
    assert max(found) <= MOST[name]


def test_every_run_has_a_record_of_its_own(chosen: dict[str, UnlearnSettings]) -> None:
    files = [task.record for name in chosen for task in passes.tasks(name, chosen[name])]
    assert len(set(files)) == len(files)
