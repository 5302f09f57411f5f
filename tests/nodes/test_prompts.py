"""Diversify Retain Prompts beyond its main inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import folder_paths
import pytest

from ..core.tiny_models import write_language_model
from .pack import NODES, ROOT, node_result, pack_module, run_node, schema_inputs, shown_by

NODE = "UnlearnDiversifyPrompts"
FEW = {"train_count": 8, "test_count": 2}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input and output folders."""
    for kind in ("input", "output"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def concept(**widgets: Any) -> Any:
    return node_result("UnlearnForgetConcept", **widgets)[0]


def test_the_page_receives_the_texts_of_the_presets() -> None:
    presets_of_page = schema_inputs(NODE)["preset"].as_dict()["presets"]
    read = pack_module("unlearn_core.prompts.diversify").parse_dimensions
    presets = pack_module("nodes.inputs.prompts").ALL_PRESETS
    assert set(presets_of_page) == set(presets)
    for name, (templates, dimensions) in presets_of_page.items():
        assert tuple(templates.splitlines()) == presets[name].templates
        assert read(dimensions) == presets[name].dimensions


@pytest.mark.parametrize("preset", ["object", "nudity"])
def test_empty_fields_use_the_preset(preset: str) -> None:
    (pairs, _) = node_result(
        NODE,
        concept=concept(concept="zebra", kind="object", replacements="horse"),
        templates=" ",
        dimensions="",
        preset=preset,
        **FEW,
    )
    assert (
        pairs.dimensions == pack_module("unlearn_core.prompts.presets").PRESETS[preset].dimensions
    )


def test_lists_may_have_the_separators_of_any_keyboard() -> None:
    typed = concept(synonyms="sumi；墨", replacements="noto，twemoji、fluent; pixel")
    assert typed.synonyms == ("sumi", "墨")
    assert typed.replacements == ("noto", "twemoji", "fluent", "pixel")
    pairs, _ = node_result(
        NODE, concept=typed, templates="{物} {concept}", dimensions="物： 猫、狗，鱼", **FEW
    )
    assert pairs.dimensions == {"物": ("猫", "狗", "鱼")}


def test_made_up_names_join_the_replacements() -> None:
    pairs, text = node_result(
        NODE, concept=concept(), invented_names=1, gibberish_names=1, **{**FEW, "train_count": 60}
    )
    replacements = {pair.replacement for pair in pairs.train}
    assert len(replacements - {"noto", "twemoji", "fluent", "pixel"}) == 2
    assert all(name in text for name in replacements)


def test_prompts_are_saved_and_read_again(folders: Path) -> None:
    pairs, text = node_result(NODE, concept=concept(), save_as="mine", **FEW)
    saved = folders / "output" / "unlearn" / "mine.json"
    assert str(saved) in text
    (folders / "input" / "shared.json").write_bytes(saved.read_bytes())
    assert "shared.json" in schema_inputs(NODE)["prompts_file"].options
    again, _ = node_result(
        NODE, concept=concept(), prompts_file="shared.json", templates="x", dimensions="x"
    )
    assert again == pairs
    with pytest.raises(ValueError, match="its name is 'ink' and not 'cat'.* change the concept"):
        run_node(NODE, concept=concept(concept="cat"), prompts_file="shared.json")


def test_only_prompts_that_were_saved_here_are_replaced(folders: Path) -> None:
    """A downloaded workflow may name any file."""
    file = folders / "output" / "unlearn" / "mine.json"
    for train_count in (4, 3):
        run_node(NODE, concept=concept(), save_as="mine", **{**FEW, "train_count": train_count})
    edited = file.read_text("utf-8").replace("cat", "tomcat")
    for content in (edited, "mine"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(FileExistsError, match="save_as: 'mine.json' in .* was not written by"):
            run_node(NODE, concept=concept(), save_as="mine", **FEW)
        assert file.read_text("utf-8") == content
    with pytest.raises(FileExistsError, match="save_as: 'unlearn_files.json'"):
        run_node(NODE, concept=concept(), save_as="unlearn_files", **FEW)


def test_an_edited_file_counts_as_a_changed_input(folders: Path) -> None:
    run_node(NODE, concept=concept(), save_as="mine", **FEW)
    file = folders / "input" / "mine.json"
    file.write_bytes((folders / "output" / "unlearn" / "mine.json").read_bytes())
    fingerprint = NODES[NODE].fingerprint_inputs
    before = fingerprint(prompts_file="mine.json")
    assert fingerprint(prompts_file="mine.json") == before
    file.write_text(file.read_text("utf-8").replace("cat", "tomcat"), encoding="utf-8")
    assert fingerprint(prompts_file="mine.json") != before
    assert fingerprint(prompts_file="none") == fingerprint(prompts_file="none")


def test_a_file_without_prompts_is_refused(folders: Path) -> None:
    (folders / "input" / "shared.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="prompts: the file must contain"):
        run_node(NODE, concept=concept(), prompts_file="shared.json")


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the comparison of neighbours."""
    monkeypatch.setattr(pack_module("unlearn_core.judging.neighbours"), "PICTURES", 2)


@pytest.mark.usefixtures("few_pictures")
def test_the_nearest_candidates_join_the_replacements() -> None:
    (model, _) = node_result("UnlearnLoadModel", model="EmojiCanvas (demo)")
    pairs, _ = node_result(
        NODE,
        concept=concept(replacements="noto"),
        model=model,
        neighbours=2,
        candidates="noto, fluent, pixel, twemoji",
        **FEW,
    )
    replacements = pairs.concept.replacements
    assert replacements[0] == "noto"
    assert len(replacements) == 3
    assert set(replacements[1:]) < {"fluent", "pixel", "twemoji"}


@pytest.mark.usefixtures("few_pictures")
def test_prompts_with_neighbours_are_saved_edited_and_read_again(folders: Path) -> None:
    (model, _) = node_result("UnlearnLoadModel", model="EmojiCanvas (demo)")
    widgets = {"neighbours": 1, "candidates": "fluent, pixel", **FEW}
    mine = concept(replacements="noto")
    output = run_node(NODE, concept=mine, model=model, save_as="mine", **widgets)
    assert output.result is not None
    original = output.result[0]
    (table,) = shown_by(output)["unlearn_prompts"]
    table["test"] = table["test"][:1]
    edited, _ = node_result(NODE, concept=mine, edited_prompts=json.dumps(table), **widgets)
    assert edited.concept == original.concept
    assert len(edited.test) == 1
    saved = (folders / "output" / "unlearn" / "mine.json").read_bytes()
    (folders / "input" / "shared.json").write_bytes(saved)
    # Other users of the file need not list the neighbours found here.
    for replacements in ("noto", ""):
        again, _ = node_result(
            NODE, concept=concept(replacements=replacements), prompts_file="shared.json"
        )
        assert again == original
    lacking = r"was created without 'chalk' among its replacements; .* concept's replacements"
    with pytest.raises(ValueError, match=lacking):
        run_node(NODE, concept=concept(replacements="noto, chalk"), prompts_file="shared.json")


@pytest.mark.parametrize(
    ("widgets", "message"),
    [({"candidates": "dog"}, "link a model"), ({"candidates": ""}, "link a model")],
)
def test_neighbours_need_a_model(widgets: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"neighbours: {message}"):
        run_node(NODE, concept=concept(), neighbours=1, **widgets)


def test_another_seed_may_allow_a_split(folders: Path) -> None:
    """As the message says, the seed decides whether the values can be split."""
    widgets = {
        "templates": "a {object} beside a {beside} in {concept}",
        "dimensions": "object: cat, dog, fish, bird\nbeside: cat, dog",
    }
    with pytest.raises(ValueError, match="or change the seed"):
        run_node(NODE, concept=concept(), seed=0, **widgets)
    run_node(NODE, concept=concept(), seed=1, **widgets)


def test_hidden_files_are_not_listed(folders: Path) -> None:
    """The check of names would refuse them."""
    for name in (".thumbs", "mine"):
        (folders / "input" / name).mkdir()
        (folders / "input" / f"{name}.json").touch()
    choices = pack_module("nodes.host.folders")
    assert choices.picture_folders() == ["mine"]
    assert choices.prompt_files() == ["mine.json"]


def test_neighbours_need_a_clip(folders: Path) -> None:
    (model, _) = node_result("UnlearnLoadModel", model="tiny-sd")
    with pytest.raises(
        ValueError, match="neighbours: 'tiny-sd' has no CLIP to compare pictures with"
    ):
        run_node(NODE, concept=concept(), model=model, neighbours=1, candidates="noto")


def test_models_without_a_clip_use_the_paper_s_for_comparison(
    folders: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    paper = tmp_path / "models" / "open_clip" / pack_module("nodes.host.folders").PAPER_SCORER
    shutil.copytree(ROOT / "demo" / "models" / "emoji-canvas" / "evaluation", paper)
    (model, _) = node_result("UnlearnLoadModel", model="tiny-sd")
    widgets = {"neighbours": 1, "candidates": "fluent, pixel", **FEW}
    pairs, _ = node_result(NODE, concept=concept(replacements="noto"), model=model, **widgets)
    assert set(pairs.concept.replacements) in ({"noto", "fluent"}, {"noto", "pixel"})


def test_a_language_model_proposes_values(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained one may write anything; the user's values stay in any case."""
    monkeypatch.setattr(folder_paths, "models_dir", str(folders))
    write_language_model(folders / "LLM" / "tiny")
    assert schema_inputs(NODE)["language_model"].options == ["none", "tiny"]
    pairs, _ = node_result(
        NODE,
        concept=concept(),
        templates="a {thing} in {concept} style",
        dimensions="thing: boat, owl, shed, road",
        language_model="tiny",
        proposals=2,
        **FEW,
    )
    assert pairs.dimensions["thing"][:4] == ("boat", "owl", "shed", "road")
    assert len(pairs.dimensions["thing"]) <= 6
    (folders / "LLM" / "tiny" / "config.json").unlink()
    with pytest.raises(ValueError, match="language_model: 'tiny' is not in ComfyUI's models/LLM"):
        run_node(NODE, concept=concept(), language_model="tiny")
