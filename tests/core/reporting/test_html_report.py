"""The HTML report: one self-contained file in which all text is escaped."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from unlearn_core.evaluation.bootstrap import Interval
from unlearn_core.evaluation.results import AlignmentReport, Comparison, Metrics, PictureFacts
from unlearn_core.judging.curves import Curve, Point
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.pairs import PromptPair, PromptPairs
from unlearn_core.reporting.figures import Figure
from unlearn_core.reporting.grids import picture_file
from unlearn_core.reporting.html_report import html_report
from unlearn_core.reporting.report import report_json
from unlearn_core.reporting.svg import interval_bar, recovery_svg
from unlearn_core.unlearning.alarms import turned_to_noise, unknown_word
from unlearn_core.unlearning.results import StepReport, UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

EVIL = '<script>alert(1)</script>" onload="x'
BEFORE = Metrics(0.1, 0.85, 0.75, None, 0.6, 0.65, 0.55, 27, 30)
AFTER = Metrics(0.9, 0.8, 0.7, None, 0.3, 0.4, 0.5, 3, 30)


def comparison(count: int, prompt: str, shows: Sequence[bool], edge: int = 8) -> Comparison:
    pictures = torch.zeros(count, 3, edge, edge, dtype=torch.uint8)
    facts = [
        PictureFacts("near" if i % 2 else "far", True, shows[i], i / 100, 0.3, 0.2)
        for i in range(count)
    ]
    prompts = tuple(f"{prompt} {i}" for i in range(count))
    return Comparison(prompts, pictures, pictures + 255, tuple(facts))


PARAPHRASES = Curve("paraphrases", "", (Point(0, "", 30, 2),), ("a",) * 30, torch.zeros(0))


def make_report(name: str = "ink", prompt: str = "a cat", edge: int = 8) -> AlignmentReport:
    shows = [i in (5, 28) for i in range(30)]
    never = [False] * 30
    return AlignmentReport(
        ForgetConcept(name, "style"),
        BEFORE,
        AFTER,
        {
            "forget": comparison(30, f"{prompt} forget", shows, edge),
            "retain train": comparison(30, f"{prompt} train", never, edge),
            "retain test": comparison(30, f"{prompt} test", never, edge),
        },
        0.5,
        intervals={"unlearning_accuracy": Interval(0.7, 0.97)},
        neighbours=("near",),
        detections={"BELLY_EXPOSED": (5, 0)},
        curves=(PARAPHRASES,),
        missing=(f"no {name}",),
    )


def step(i: int, loss: float = 0.5) -> StepReport:
    return StepReport(i, loss, loss / 2, -0.1, i % 2 == 0, 1.0, 1.0, -0.1, -0.1, 0.1)


@pytest.fixture
def unlearned(sd_model: ModelHandle) -> UnlearnedModel:
    pair = PromptPair("ink cat", "noto cat", "noto", {})
    pairs = PromptPairs(ForgetConcept("ink"), (pair,), (pair,), {})
    steps = tuple(step(i + 1) for i in range(10))
    return UnlearnedModel(sd_model, sd_model, pairs, UnlearnSettings(), steps)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_report_is_self_contained(unlearned: UnlearnedModel) -> None:
    text = html_report(unlearned, make_report())
    page = Page(text)
    pictures = page.all("img")
    assert len(pictures) == 2 * 3 * 24
    for picture in pictures:
        kind, _, content = str(picture["src"]).partition(";base64,")
        assert kind == "data:image/png"
        assert b64decode(content).startswith(b"\x89PNG")
    assert not page.all("link")
    assert not [a for _, a in page.tags if {"href", "srcset", "onload", "style"} & a.keys()]
    assert not re.search(r"https?:|url\(|@import", text)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    assert unlearned.base.info.fingerprint in page.text


def test_the_worst_pairs_come_first_and_the_count_is_shown(
    unlearned: UnlearnedModel,
) -> None:
    page = Page(html_report(unlearned, make_report()))
    assert page.text.count("24 of 30 shown") == 3
    labels = [str(a["aria-label"]) for a in page.all("input") if "aria-label" in a]
    assert len(labels) == 3 * 24
    assert labels[0].endswith("a cat forget 5")
    assert labels[1].endswith("a cat forget 28")
    assert labels[24].endswith(" 29")  # the neighbour that changed most
    assert "still shows" in page.text
    assert "Most similar to it: near" in page.text


def test_large_pictures_are_jpeg() -> None:
    assert picture_file(Image.new("RGB", (255, 255)))[1] == "png"
    content, suffix = picture_file(Image.new("RGB", (256, 256)))
    assert suffix == "jpg"
    assert content.startswith(b"\xff\xd8")


def test_text_from_a_stranger_is_escaped(unlearned: UnlearnedModel) -> None:
    report = make_report(EVIL, EVIL)
    text = html_report(unlearned, replace(report, also=(make_report(EVIL, EVIL),)))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "alert(1)" in page.text
    assert not [a for _, a in page.tags if "onload" in a]
    assert EVIL not in text


def test_before_and_after_are_not_swapped(unlearned: UnlearnedModel) -> None:
    page = Page(html_report(unlearned, make_report()))
    for alt, colour in (("before", 0), ("after", 255)):
        sources = [str(a["src"]) for a in page.all("img") if a["alt"] == alt]
        for content in set(sources):
            with Image.open(BytesIO(b64decode(content.partition(",")[2]))) as picture:
                assert picture.convert("L").getextrema() == (colour, colour)
    assert "concept absent (UA)0.1000.900" in page.text
    assert "alternatives kept (IRA)0.8500.800" in page.text
    assert "content kept (CRA)0.7500.700" in page.text
    assert "belly exposed50" in page.text


def test_figures_and_probes_have_intervals(unlearned: UnlearnedModel) -> None:
    text = Page(html_report(unlearned, make_report())).text
    assert "0.700 to 0.970" in text
    assert "belly exposed" in text
    assert "paraphrases" in text
    assert "removed" not in text


def test_recovery_curves_are_drawn_and_put_into_words(unlearned: UnlearnedModel) -> None:
    points = tuple(
        Point(steps, f"after {steps} steps of training on 10 pictures", 30, shown)
        for steps, shown in ((10, 3), (60, 12))
    )
    pictures = torch.zeros(32, 3, 8, 8, dtype=torch.uint8)
    training = Curve("relearning", "steps", points, ("<a cat>",) * 32, pictures)
    images = Curve(
        "image to image", "% noise", (Point(30, "with 30 % noise", 32, 31),), ("",) * 32, pictures
    )
    report = replace(make_report(), curves=(PARAPHRASES, training, images))
    page = Page(html_report(unlearned, report))
    assert "after 60 steps of training on 10 pictures: in 12 of 32 (before unlearning: 30)" in (
        page.text
    )
    assert "with the plain prompts: in" in page.text
    assert "The strongest attack was" not in page.text, "there is only one besides image to image"
    words = "The strongest attack was relearning: after 60 steps"
    other = replace(training, name="inversion", points=(replace(points[0], shown_after=2),))
    assert words in Page(html_report(unlearned, replace(report, curves=(training, other)))).text
    (svg,) = re.findall(r'<svg class="recovery".*?</svg>', recovery_svg(training))
    assert svg.count("<circle") == 4
    assert "relearning, 60 steps" in page.text


def test_an_unjudged_report_and_a_run_without_steps(unlearned: UnlearnedModel) -> None:
    pictures = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    metrics = Metrics(None, None, None, None, None, None, None, None, 1)
    facts = (PictureFacts("", None, None, None, None, None),)
    part = Comparison(("a cat",), pictures, pictures, facts)
    groups = {name: part for name in ("forget", "retain train", "retain test")}
    unjudged = AlignmentReport(ForgetConcept("ink"), metrics, metrics, groups, None)
    page = Page(html_report(replace(unlearned, reports=()), unjudged))
    assert "look at the pictures" in page.text
    assert not page.all("polyline")


def test_the_chart_is_omitted_if_no_loss_is_finite(unlearned: UnlearnedModel) -> None:
    broken = tuple(step(i + 1, math.nan) for i in range(3))
    assert 'class="chart"' in html_report(unlearned, make_report())
    assert "<h2>Losses" not in html_report(replace(unlearned, reports=broken), make_report())


def test_interval_bars_are_drawn_for_shares_only() -> None:
    share = Figure("a", "a", 0.9, 0.1, Interval(0.0, 0.2))
    assert "before" in interval_bar(share)
    assert interval_bar(replace(share, after=-0.1)) == ""
    assert interval_bar(replace(share, interval=None)) == ""
    assert interval_bar(replace(share, after=math.nan)) == ""


def test_alarms_of_the_run_are_shown(unlearned: UnlearnedModel) -> None:
    alarms = (unknown_word(EVIL), turned_to_noise(10))
    result = replace(unlearned, alarms=alarms)
    page = html_report(result, make_report())
    assert "Warning: the rest of the model has turned to noise" in page
    assert "Warning: the model&#x27;s predictions" in page
    assert EVIL not in page
    assert report_json(result, None)["alarms"] == [
        {"step": 0, "kind": "unknown word", "message": alarms[0].message},
        {"step": 10, "kind": "turned to noise", "message": alarms[1].message},
    ]
