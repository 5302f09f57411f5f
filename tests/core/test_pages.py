"""The documentation pages: their length, links and figures."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import records
from benchmarks.quality import TIERS

from ..fuzz.table import FIGURES, table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
ROOMS = ("unlearn_core", "nodes", "demo", "benchmarks", "tests")
MOST_WORDS = {"README.md": 900}
ANIMATION_BYTES = 2_000_000
LINK = re.compile(r"\]\(([^)\s]+)\)")


def words(page: str) -> int:
    """Word count of a Markdown page without tables, code blocks, comments and link targets."""
    page = re.sub(r"```.*?```|<!--.*?-->", "", page, flags=re.DOTALL)
    prose = "\n".join(line for line in page.splitlines() if not line.lstrip().startswith("|"))
    return sum(any(c.isalnum() for c in word) for word in LINK.sub("]", prose).split())


def test_words_are_counted_without_tables_code_and_link_targets() -> None:
    page = "# One *two*\n\n| a | b |\n| --- | --- |\n\n```\nc d\n```\n[three](four) - <!-- e -->"
    assert words(page) == 3


@pytest.mark.parametrize("name", MOST_WORDS)
def test_a_page_has_at_most_its_number_of_words(name: str) -> None:
    assert words((ROOT / name).read_text(encoding="utf-8")) <= MOST_WORDS[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_have_a_target(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_a_page_exist(page: Path) -> None:
    """Python files, by path or, in the text on their folder, by name."""
    known = {file.name for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    known |= {file.name for file in ROOT.glob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)\b", page.read_text(encoding="utf-8")):
        assert name.rpartition("/")[2] in known, name


def test_the_animation_is_small() -> None:
    assert (DOCS / "live_panel.webp").stat().st_size <= ANIMATION_BYTES


def test_the_figures_in_the_text_agree_with_the_records() -> None:
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    ours, uce = (records.records(name, records.CONCEPTS) for name in ("ours", "UCE"))
    held_out = records.records("ours", TIERS["unseen"])

    def mean(group: list[records.Record], value: Callable[[records.Record], float]) -> float:
        return statistics.mean(value(record) for record in group)

    both = [mean(group, records.mean_of_shares) for group in (uce, ours)]
    assert "{:.3f} against {:.3f}".format(*both) in page
    loss = -mean(ours, records.drift("retain_test"))
    assert f"lose {loss:.3f} in alignment" in page
    assert f"UA was {mean(held_out, lambda r: r['after']['unlearning_accuracy']):.3f}" in page
    assert mean(held_out, records.drift("retain_test")) >= 0
    for attack in ("textual inversion", "relearning from ten pictures"):
        for name in ("ours", "ours, cold start"):
            group = records.records(name, records.CONCEPTS)
            recovery = [r["probes"][attack]["after"] for r in group if r["probes"]]
            assert f" {statistics.mean(recovery):.2f} " in page, (attack, name)


def test_the_figures_of_the_long_fuzz() -> None:
    targets = json.loads(FIGURES.read_text(encoding="utf-8"))["targets"]
    assert (DOCS / "faults.md").read_text(encoding="utf-8").endswith(table(targets))
    for name, figures in targets.items():
        assert (figures["crashed"], figures["outside"]) == (0, []), name
        assert figures["slowest"] < 10, name
        assert figures["megabytes"] < 500, name


def test_every_test_in_the_table_of_faults_exists() -> None:
    page = (DOCS / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", row.split(" | ")[-1])
        assert named, row
        for file, name in named:
            code = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name or 'test_'}" in code, row
