"""The values of the widgets reach the core."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image

from .pack import NODES, node_result, pack_module, run_node, schema_inputs

from comfy_api.latest import io  # isort: skip

UNLEARN, EVALUATE, DIVERSIFY, SAVE, OWN = (
    "UnlearnRestrictedGradient",
    "UnlearnEvaluateAlignment",
    "UnlearnDiversifyPrompts",
    "UnlearnSaveCheckpoint",
    "UnlearnOwnPictures",
)


class ReachedError(Exception):
    """The node has called the core with these arguments."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.arguments, self.named = args, kwargs


def spy(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    """Replace a function of the core by one that only reports its arguments."""

    def work(*args: Any, **kwargs: Any) -> NoReturn:
        raise ReachedError(args, kwargs)

    monkeypatch.setattr(pack_module(module), name, work)


def reached(node: str, **inputs: Any) -> ReachedError:
    with pytest.raises(ReachedError) as caught:
        run_node(node, **inputs)
    return caught.value


def another(one: io.WidgetInput) -> Any:
    """A valid value other than the default."""
    if isinstance(one, io.Combo.Input):
        return next(option for option in one.options or () if option != one.default)
    if isinstance(one, io.Boolean.Input):
        return not one.default
    assert isinstance(one, (io.Int.Input, io.Float.Input))
    assert one.default is not None
    return one.default + 1 if isinstance(one, io.Int.Input) else one.default / 2 + 0.0625


def concept_of(name: str) -> Any:
    widgets = {"concept": name, "kind": "object", "replacements": "dog"}
    return node_result("UnlearnForgetConcept", **widgets)[0]


def changed_widgets(node: str, *without: str) -> dict[str, Any]:
    inputs = schema_inputs(node).items()
    return {
        name: another(one)
        for name, one in inputs
        if isinstance(one, io.WidgetInput) and name not in without
    }


# Weight decay and saliency exclude each other, and so do harden and any other objective.
@pytest.mark.parametrize("apart", [("weight_decay", "harden"), ("saliency", "objective")])
def test_unlearning(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch, apart: tuple[str, str]
) -> None:
    spy(monkeypatch, "nodes.restricted_gradient", "FollowedRun")
    widgets = changed_widgets(UNLEARN, *apart)
    widgets["method"] = "dual cone"
    widgets["scope"] = "full"
    own = [
        node_result(OWN, images=torch.rand(1, 8, 8, 3), captions=caption)[0]
        for caption in ("an ink cat", "a cat")
    ]
    pictures = {"forget_pictures": own[0], "retain_pictures": own[1]}
    call = reached(UNLEARN, model=loaded, prompts=pairs, **widgets, **pictures)
    task, chosen, preview_every, keep_step = call.arguments
    settings, drawing = task.settings, task.drawing
    assert chosen == settings, "nothing is left to choose"
    assert task.model is loaded
    assert task.pairs is pairs
    default = type(settings)()
    for field in dataclasses.fields(settings):
        if field.name not in apart:
            assert (
                getattr(settings, field.name) == widgets[field.name] != getattr(default, field.name)
            ), field.name
    assert drawing == type(drawing)(
        widgets["generation_steps"], widgets["guidance_scale"], widgets["seed"],
        widgets["batch_size"],
    )  # fmt: skip
    assert (preview_every, keep_step) == (widgets["preview_every"], widgets["keep_step"])
    assert [task.forget_pictures, task.retain_pictures] == own


def test_evaluating(unlearned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy(monkeypatch, "nodes.evaluate_alignment", "evaluate")
    widgets = changed_widgets(EVALUATE, "scorer", "report_name")
    call = reached(EVALUATE, unlearned=unlearned, **widgets)
    assert call.arguments[0] is unlearned
    settings = call.arguments[1]
    assert (settings.pictures, settings.probes) == (widgets["pictures"], widgets["probes"])
    assert settings.generation == type(settings.generation)(
        widgets["generation_steps"], widgets["guidance_scale"], widgets["seed"],
        widgets["batch_size"],
    )  # fmt: skip


def test_diversifying() -> None:
    concept = concept_of("cat")
    widgets: dict[str, Any] = {
        "train_count": 7,
        "test_count": 3,
        "test_share": 0.5,
        "seed": 5,
        "invented_names": 2,
        "gibberish_names": 1,
    }
    grid = {"templates": "a {concept} in {place}", "dimensions": "place: town, sea, air, space"}
    (actual, _) = node_result(DIVERSIFY, concept=concept, **grid, **widgets)
    prompts = pack_module("unlearn_core.prompts.diversify")
    dimensions = prompts.parse_dimensions(grid["dimensions"])
    expected = prompts.diversify(concept, [grid["templates"]], dimensions, **widgets)
    assert actual == expected
    for name in widgets:
        fewer = {**widgets, name: 1 if name != "test_share" else 0.25}
        if fewer != widgets:
            assert prompts.diversify(concept, [grid["templates"]], dimensions, **fewer) != expected


def test_finding_neighbours(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy(monkeypatch, "nodes.diversify_prompts", "with_neighbours")
    concept = concept_of("cat")
    widgets = {"neighbours": 3, "candidates": "fox, owl, bee, ant", "seed": 6}
    call = reached(DIVERSIFY, concept=concept, model=loaded, **widgets)
    assert call.arguments[:2] == (loaded, concept)
    assert tuple(call.arguments[4]) == ("fox", "owl", "bee", "ant")
    assert call.arguments[5] == 3
    assert call.named["seed"] == 6


def test_the_linked_concept_stays_first(pairs: Any) -> None:
    concept = concept_of("yak")
    grid = {"templates": "a {concept} in {place}", "dimensions": "place: town, sea"}
    (both, _) = node_result(DIVERSIFY, concept=concept, also=pairs, **grid)
    assert [part.concept.name for part in both.each] == ["ink", "yak"]


def test_saving_a_lora(unlearned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy(monkeypatch, "nodes.save_checkpoint", "save_lora")
    choices = schema_inputs(SAVE)["save_as"].options
    lora = next(choice for choice in choices if "LoRA" in choice)
    call = reached(
        SAVE, unlearned=unlearned, name="mine", save_as=lora, lora_rank=5, overwrite=True
    )
    assert call.named["rank"] == 5
    assert call.named["overwrite"] is True


def test_a_report_about_another_concept_is_refused(unlearned: Any, diffusers: Path) -> None:
    quick = {"pictures": 1, "generation_steps": 2}
    report = node_result(EVALUATE, unlearned=unlearned, **quick)[0]
    cat = dataclasses.replace(report, concept=dataclasses.replace(report.concept, name="cat"))
    with pytest.raises(ValueError, match="report must be about 'ink', .* got one about 'cat'"):
        run_node(SAVE, unlearned=unlearned, report=cat, name="mine")
    assert not list(diffusers.iterdir())


def test_own_pictures_may_be_used_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mine" / "a.png")
    for alone in (True, False):
        (pictures, _) = node_result(OWN, folder="mine", captions="an ink cat", alone=alone)
        assert pictures.alone is alone


def test_all_nodes_are_tested_here() -> None:
    """A new node must be added here."""
    here = {UNLEARN, EVALUATE, DIVERSIFY, SAVE, OWN}
    native = {"UnlearnFromComfyUI", "UnlearnDemoModel", "UnlearnQuickForget"}  # in nodes/native
    assert set(NODES) - here - native == {"UnlearnLoadModel", "UnlearnForgetConcept"}
