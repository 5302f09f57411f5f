"""The benchmarks' pages, against the records that are committed beside them."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import (
    digits_report,
    equal_passes,
    figures,
    flow,
    quality,
    quality_report,
    rates,
    several,
)
from benchmarks.comparisons import Answers, answers
from benchmarks.digits import BALANCED
from benchmarks.pages import APPENDIX, FRONT, README
from demo.jobs import EMOJI, job_settings
from unlearn_core.models.load import load_model
from unlearn_core.unlearning import auto
from unlearn_core.unlearning.recipes import LOOKS, RECIPES, from_recipe
from unlearn_core.unlearning.settings import NORMAL, UCE, UnlearnSettings

PACK = Path(__file__).resolve().parents[3]
MAIN = README.read_text(encoding="utf-8")
BEHIND = APPENDIX.read_text(encoding="utf-8")
STALE = "run python -m benchmarks.quality_report"
MOST_WORDS = 2500
HELP = PACK / "web" / "docs"
"""In the order of the help page's table."""


OF_NO_RECORD = {
    "0.85",  # cosines of the bundled CLIP
    "0.35",  # and of the paper's
    "0.003",  # a target that was set beforehand
}
"""Decimal numbers in the main page's sentences that no record gives."""


@pytest.fixture(scope="module")
def found() -> dict[str, Answers]:
    return answers()


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    return figures.figures()


def prose(text: str) -> str:
    """Without tables, code blocks, pictures and the addresses of links; comments are no text."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^]]*]\([^)]*\)", "", text)
    text = re.sub(r"(?<=])\([^)]*\)", "", text)
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


def test_the_tables_are_those_of_the_records(found: dict[str, Answers]) -> None:
    assert quality_report.page(found) in BEHIND, STALE
    assert quality_report.front_table() in FRONT.read_text(encoding="utf-8"), STALE
    for name, block in quality_report.blocks(found).items():
        assert f"<!-- {name} -->\n\n{block}\n\n<!-- end of {name} -->" in MAIN, STALE


def test_the_tables_of_the_digits_are_too() -> None:
    parts = (
        digits_report.against_paper(),
        digits_report.order_of_paper(),
        digits_report.search_table(),
    )
    for text in parts:
        assert text in BEHIND, "run python -m benchmarks.digits_report"
    assert digits_report.table(BALANCED) in MAIN, "run python -m benchmarks.digits_report"


def test_the_tables_of_the_flow_model_are_complete_and_those_of_the_records() -> None:
    tables = flow.table()
    assert tables.count("| 12 of 12 |") == len(flow.CONTEST.methods)
    page = FRONT.read_text(encoding="utf-8")
    assert f"<!-- flow -->\n\n{tables}\n\n<!-- end of flow -->" in page, "see benchmarks.flow"


def test_the_table_at_equal_passes_is_that_of_the_records() -> None:
    block = (
        f"<!-- equal passes -->\n\n{equal_passes.CONTEST.table()}\n\n<!-- end of equal passes -->"
    )
    assert block in FRONT.read_text(encoding="utf-8"), "see benchmarks.equal_passes"


@pytest.mark.parametrize("module", [rates, several], ids=lambda module: module.__name__)
def test_a_table_is_that_of_the_records(module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    block = f"<!-- {name} -->\n\n{module.table()}\n\n<!-- end of {name} -->"
    assert block in FRONT.read_text(encoding="utf-8"), f"see python -m {module.__name__} --table"


@pytest.mark.parametrize("page", [README, APPENDIX], ids=lambda page: page.name)
def test_the_sentences_have_the_records_figures(page: Path, known: dict[str, str]) -> None:
    text = page.read_text(encoding="utf-8")
    stale = [
        f"{place['name']}: {place['shown']}, but the records give {known.get(place['name'])}"
        for place in figures.PLACE.finditer(text)
        if place["shown"] != known.get(place["name"])
    ]
    assert not stale, STALE
    assert len(figures.PLACE.findall(text)) == text.count("<!--= "), "a figure is not closed"
    html = re.findall(r"^ *<!--=.*$", text, flags=re.MULTILINE)
    assert not html, "Markdown takes a line that begins with a comment for a block of HTML"


def test_no_decimal_number_on_the_main_page_is_copied_by_hand() -> None:
    by_hand = re.findall(r"\d+\.\d+", prose(figures.PLACE.sub("", MAIN)))
    assert set(by_hand) <= OF_NO_RECORD


def test_the_main_page_is_short() -> None:
    assert len(prose(MAIN).split()) <= MOST_WORDS


def test_the_negative_result_comes_first_and_the_held_out_objects_on_top(
    found: dict[str, Answers], known: dict[str, str]
) -> None:
    abstract, results = MAIN.split("## Quality")
    first = abstract.split("## Abstract")[1].strip()
    assert first.startswith("**The restricted gradient rule makes no visible difference")
    effect = "parts/ours/ours-graddiff/HM"
    assert f"<!--= {effect} -->{known[effect]}<!--/-->" in first
    rows = [("ours", "ours, step not restricted"), ("ours", "ours, GradDiff")]
    for row in rows:
        for figure in ("harmonic mean", "alignment, train", "alignment, test", "CMMD"):
            test = found["parts"].tests[row, figure]
            assert test.verdict == "not significant"
            assert abs(test.mean) < 0.001
    assert results.index("**Held-out objects") < results.index("**The four scored concepts")


def test_the_main_page_claims_no_more_than_the_tests(found: dict[str, Answers]) -> None:
    """Sentences without a figure, and what they rest on."""
    text = " ".join(prose(MAIN).split())
    verdicts = {name: [t.verdict for t in of.tests.values()] for name, of in found.items()}
    assert "no difference between ours and a variant of ours is" in text
    assert set(verdicts["parts"]) == {"not significant"}
    assert "None is significant over the other two, UCE and ESD-x" in text
    for baseline in ("UCE", "ESD-x"):
        of_baseline = [t for (row, _), t in found["unseen"].tests.items() if row[1] == baseline]
        assert {test.verdict for test in of_baseline} == {"not significant"}
    assert "Against **UCE**, the strongest baseline, nothing is significant" in text
    against_uce = [t for (row, _), t in found["scored"].tests.items() if row[1] == "UCE"]
    assert {test.verdict for test in against_uce} == {"not significant"}
    assert "worse" not in verdicts["unseen"] + verdicts["scored"]


def test_the_links_into_the_appendix_have_their_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", BEHIND, flags=re.MULTILINE)
    known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = re.findall(r"\(APPENDIX\.md#([\w-]+)\)", MAIN)
    assert linked
    assert set(linked) <= known


def test_a_figure_is_written_in_its_place() -> None:
    text = "a <!--= here -->\nold<!--/--> b <!--= there -->?<!--/--> <!-- a comment -->"
    assert figures.fill(text, {"here": "0.1", "there": "x and y"}) == (
        "a <!--= here -->0.1<!--/--> b <!--= there -->x and y<!--/--> <!-- a comment -->"
    )
    with pytest.raises(ValueError, match="'there'"):
        figures.fill(text, {"here": "0.1"})


def test_every_record_names_code_that_the_appendix_knows() -> None:
    for file in quality.RESULTS.glob("*.json"):
        made_by = re.search(r'"code": "(\w+)"', file.read_text(encoding="utf-8"))
        assert made_by is None or made_by[1] in BEHIND, f"{file.name}: name the commit"


@pytest.mark.parametrize("page", ["", "/zh"])
def test_the_help_page_lists_the_recipes_with_the_rate_that_the_search_chose(page: str) -> None:
    text = (HELP / f"UnlearnRestrictedGradient{page}.md").read_text(encoding="utf-8")
    table = re.search(r"^\| (?:recipe|配方) \|(?:.*\n)+?\n", f"{text}\n", flags=re.MULTILINE)
    assert table is not None
    rows = table[0].splitlines()[2:-1]
    listed: dict[str, str] = {}
    for row in rows:
        names, _, rate = (cell.strip() for cell in row.split("|")[1:-1])
        listed.update(dict.fromkeys(re.split(", |、", names), rate))
    assert list(listed) == list(RECIPES)
    assert listed.pop("ours") == f"{auto.WARM[NORMAL].learning_rate:g}"
    look = auto.resolved(from_recipe(LOOKS), load_model(EMOJI))  # it is not part of the search
    assert listed.pop(LOOKS) == f"{look.learning_rate:g}"
    for recipe, rate in listed.items():
        method = {"RG (paper)": "RGD, not diversified"}.get(recipe, recipe.replace(" (2025)", ""))
        settings = quality.tuned(method)
        assert settings is not None
        assert rate == ("" if settings.method == UCE else f"{settings.learning_rate:g}")
        if settings.method not in (UCE, "forget only", "retain only"):
            assert settings.retain_weight == RECIPES[recipe]["retain_weight"]


@pytest.mark.parametrize("page", ["", "/zh"])
def test_the_help_page_tells_what_the_demo_sets_for_digits(page: str) -> None:
    text = (HELP / f"UnlearnLoadModel{page}.md").read_text(encoding="utf-8")
    usual = asdict(UnlearnSettings())
    of_digits = asdict(job_settings("three", UnlearnSettings()).unlearn)
    set_there = {name: value for name, value in of_digits.items() if value != usual[name]}
    assert "retain_weight" in set_there
    told = text.replace("*", "").replace("`", "")
    for name, value in set_there.items():
        shown = value if isinstance(value, str) else f"{value:g}"
        assert re.search(rf"{name}(?: to| 设为| 选)? {shown}(?!\w)", told), name
