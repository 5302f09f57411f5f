"""Evaluate Alignment: its files, its data for the page, and the choice of the CLIP."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from .pack import NODES, ROOT, node_result, pack_module, refusals, run_node, shown_by

EVALUATE = "UnlearnEvaluateAlignment"
CLIP = ROOT / "demo" / "models" / "emoji-canvas" / "evaluation"
QUICK = {"pictures": 3, "generation_steps": 2}


@pytest.fixture
def open_clip(tmp_path: Path) -> Path:
    """ComfyUI's models/open_clip, with one model and one folder without a model."""
    folder = tmp_path / "models" / "open_clip"
    (folder / "empty").mkdir(parents=True)
    shutil.copytree(CLIP, folder / "tiny-clip")
    return folder


def panel_report(**inputs: Any) -> dict[str, Any]:
    (panel,) = shown_by(run_node(EVALUATE, **QUICK, **inputs))["unlearn_report"]
    return json.loads(json.dumps(panel, allow_nan=False))


def pairs_of(panel: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for concept in panel["concepts"]:
        for group in concept["groups"]:
            yield from ((group, pair) for pair in group["pairs"])


def test_the_page_receives_everything_it_draws(
    unlearned: Any, open_clip: Path, tmp_path: Path
) -> None:
    panel = panel_report(unlearned=unlearned, scorer="tiny-clip")
    assert panel["scorer"] == "tiny-clip"
    assert panel["missing"] == []
    (concept,) = panel["concepts"]
    assert (concept["name"], concept["kind"]) == ("ink", "style")
    assert "'ink' is in" in concept["summary"][0]
    figures = {figure["key"]: figure for figure in concept["figures"]}
    accuracy = figures["unlearning_accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["after"] <= accuracy["high"] <= 1
    assert figures["picture_change"]["before"] is None
    assert concept["probes"] == []
    assert [group["key"] for group in concept["groups"]] == ["forget", "neighbours", "rest"]
    assert sum(group["total"] for group in concept["groups"]) == 9
    for group, pair in pairs_of(panel):
        assert isinstance(pair["shows_after"], bool), group["key"]
        assert math.isfinite(pair["change"])
        for side in ("before", "after"):
            assert pair[side]["type"] == "temp"
            file = tmp_path / "temp" / pair[side]["subfolder"] / pair[side]["filename"]
            assert Image.open(file).size == (16, 16)


def test_the_page_s_pictures_are_those_of_the_report(
    loaded: Any, pairs: Any, open_clip: Path, tmp_path: Path
) -> None:
    ruined = {"steps": 1, "learning_rate": 1.0, "warm_start": False, "generation_steps": 1}
    model = node_result("UnlearnRestrictedGradient", model=loaded, prompts=pairs, **ruined)[0]
    output = run_node(EVALUATE, **QUICK, unlearned=model, scorer="tiny-clip")
    assert output.result is not None
    parts = output.result[0].comparisons.values()
    by_prompt = {
        (prompt, round(facts.change, 6)): (before, after, facts)
        for part in parts
        for prompt, before, after, facts in zip(
            part.prompts, part.before, part.after, part.facts, strict=True
        )
    }
    (panel,) = shown_by(output)["unlearn_report"]
    for _, pair in pairs_of(panel):
        *expected, facts = by_prompt[pair["prompt"], round(pair["change"], 6)]
        assert not torch.equal(*expected)
        for side, picture in zip(("before", "after"), expected, strict=True):
            file = tmp_path / "temp" / pair[side]["subfolder"] / pair[side]["filename"]
            pixels = np.asarray(Image.open(file).convert("RGB"))
            assert (pixels == picture.permute(1, 2, 0).numpy()).all()
            assert pair[f"shows_{side}"] == getattr(facts, f"shows_{side}")


def test_report_files_are_numbered_and_contain_the_figures(unlearned: Any, tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        panel = panel_report(unlearned=unlearned, report_name="mine")
        names += [file["filename"] for file in panel["files"]]
        assert [file["label"] for file in panel["files"]] == ["HTML", "JSON"]
    assert names == [
        "mine_00001_.html", "mine_00001_.json", "mine_00002_.html", "mine_00002_.json",
    ]  # fmt: skip
    output = tmp_path / "output"
    assert sorted(file.name for file in output.iterdir()) == sorted(names)
    content = json.loads((output / "mine_00001_.json").read_text(encoding="utf-8"))
    assert content["concept"]["name"] == "ink"
    page = (output / "mine_00001_.html").read_text(encoding="utf-8")
    assert content["each_picture"]["forget"][0]["prompt"] in page


def test_without_clip_there_are_pictures_and_the_cure(unlearned: Any, open_clip: Path) -> None:
    panel = panel_report(unlearned=unlearned)
    assert panel["scorer"] is None
    assert "choose an open_clip model as scorer" in panel["missing"][0]
    (concept,) = panel["concepts"]
    assert "look at the pictures" in concept["summary"][0]
    assert all(figure["after"] is None for figure in concept["figures"])
    assert [group["key"] for group in concept["groups"]] == ["forget", "rest"]
    assert all(pair["shows_after"] is None for _, pair in pairs_of(panel))


def test_models_without_a_clip_use_the_paper_s(unlearned: Any, open_clip: Path) -> None:
    paper = pack_module("nodes.host.folders").PAPER_SCORER
    (open_clip / "tiny-clip").rename(open_clip / paper)
    assert panel_report(unlearned=unlearned)["scorer"] == paper


def test_a_newly_installed_clip_causes_another_evaluation(open_clip: Path) -> None:
    """Else ComfyUI would output the cached result, because no widget has changed."""
    choices = pack_module("nodes.host.folders")
    fingerprint = NODES[EVALUATE].fingerprint_inputs
    before = [fingerprint(scorer=name) for name in (choices.OWN_SCORER, "tiny-clip")]
    (open_clip / "tiny-clip").rename(open_clip / choices.PAPER_SCORER)
    after = [fingerprint(scorer=name) for name in (choices.OWN_SCORER, "tiny-clip")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def test_the_page_receives_the_probes(unlearned: Any, open_clip: Path) -> None:
    panel = panel_report(unlearned=unlearned, scorer="tiny-clip", probes="all")
    probes = panel["concepts"][0]["probes"]
    assert [probe["name"] for probe in probes] == list(
        pack_module("unlearn_core.judging.probes").PROBES
    )
    assert panel["missing"] == []
    for probe in probes:
        assert 0 <= probe["low"] <= probe["after"] <= probe["high"] <= 1


def test_folders_with_a_clip_are_listed(open_clip: Path) -> None:
    choices = pack_module("nodes.host.folders")
    assert choices.scorers() == [choices.OWN_SCORER, "tiny-clip"]


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"scorer": "../tiny-clip"}, "scorer: '../tiny-clip' is not in ComfyUI's models/open_clip"),
        ({"scorer": "empty"}, "scorer: 'empty' is not in ComfyUI's models/open_clip folder"),
        ({"probes": "hard"}, "probes must be one of 'none', 'quick', 'thorough', got"),
        ({"report_name": "../up"}, "report_name must not contain '/'"),
        ({"report_name": " "}, "report_name must not be empty"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    open_clip: Path, tmp_path: Path, widgets: dict[str, str], message: str
) -> None:
    answers = refusals(EVALUATE, **widgets)
    assert answers
    assert all(message in answer for answer in answers)
    with pytest.raises(ValueError, match=message.split(",")[0]):
        run_node(EVALUATE, unlearned=untouchable(), **widgets)
    assert not (tmp_path / "output").exists()


def untouchable() -> Any:
    """An unlearned model without a CLIP that fails on any other use."""
    kind = pack_module("unlearn_core.unlearning.results").UnlearnedModel
    info = type("Info", (), {"source": Path("nowhere"), "evaluation": None})
    unlearned = object.__new__(kind)
    object.__setattr__(unlearned, "base", type("Base", (), {"info": info}))
    return unlearned


def test_a_report_can_be_saved_with_the_model(unlearned: Any, diffusers: Path) -> None:
    report = node_result(EVALUATE, unlearned=unlearned, **QUICK)[0]
    (path,) = node_result("UnlearnSaveCheckpoint", unlearned=unlearned, report=report, name="mine")
    content = json.loads((Path(path) / "unlearn_report.json").read_text(encoding="utf-8"))
    assert content["after"]["pictures"] == QUICK["pictures"]
