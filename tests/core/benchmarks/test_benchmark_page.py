"""What the pages say, against the records that are committed beside them."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import digits_report, quality, quality_report
from demo.jobs import job_settings
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

PACK = Path(__file__).resolve().parents[3]
PAGE = quality_report.README.read_text(encoding="utf-8")
HELP = PACK / "web" / "docs"
RECIPES = (
    "RG (paper)",
    "GradDiff",
    "MUNBa",
    "SalUn",
    "NPO",
    "ESD-x",
    "ESD-u",
    "gradient ascent",
    "fine-tune",
    "UCE",
)
"""In the order of the help page's table."""


def test_the_tables_say_what_the_records_say() -> None:
    assert quality_report.page() in PAGE, "run python -m benchmarks.quality_report"
    assert quality_report.front_table() in quality_report.FRONT.read_text(encoding="utf-8")


def test_the_tables_of_the_digits_do_too() -> None:
    told = (
        digits_report.against_paper(),
        digits_report.order_of_paper(),
        digits_report.search_table(),
    )
    for text in told:
        assert text in PAGE, "run python -m benchmarks.digits_report"


def test_every_record_names_code_that_the_page_knows() -> None:
    for file in quality.RESULTS.glob("*.json"):
        made_by = re.search(r'"code": "(\w+)"', file.read_text(encoding="utf-8"))
        assert made_by is None or made_by[1] in PAGE, f"{file.name}: name the commit"


@pytest.mark.parametrize("page", ["", "/zh"])
def test_the_recipes_on_the_help_page_are_the_benchmark_s(page: str) -> None:
    """What differs from the defaults, and the rate and weight that the search chose."""
    lines = (
        (HELP / f"UnlearnRestrictedGradient{page}.md")
        .read_text(encoding="utf-8")
        .replace("**", "")
        .splitlines()
    )
    table = [line for line in lines if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table]
    usually = asdict(UnlearnSettings())
    for method, (rule, objective, others, rate, weight) in zip(RECIPES, rows, strict=True):
        settings = quality.tuned(method)
        assert settings is not None
        written = asdict(settings)
        assert rule == settings.method
        steps = settings.method != UCE
        asks = steps and settings.method != "retain only"
        assert objective == (settings.objective if asks else "")
        for name in ("saliency", "negative_guidance", "scope"):
            told, usual = re.search(rf"\b{name} ([\w.]+)", others), usually[name]
            assert written[name] == (type(usual)(told[1]) if told else usual)
        assert rate == (f"{settings.learning_rate:g}" if steps else "")
        one_loss = settings.method in ("forget only", "retain only")
        assert weight == ("" if one_loss else f"{settings.retain_weight:g}")


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
        assert re.search(rf"{name}(?: 设为| 选)? {shown}(?!\w)", told), name
