"""The pictures of a look: twins, two sets, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unlearn_core.dataset.looks import twins_of
from unlearn_core.dataset.own_pictures import OwnPictures, read_folder
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.job.engine import Task
from unlearn_core.job.settings_file import read_settings
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import LOOK, ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.run_state import run_identity
from unlearn_core.unlearning.recipes import from_recipe

CAPTIONS = ("a cat", "a dog", "a house")


@pytest.fixture
def pairs() -> PromptPairs:
    concept = ForgetConcept("watermark", LOOK)
    dimensions = {"object": ("cat", "dog", "house", "tree")}
    return diversify(concept, ["a {object}"], dimensions, train_count=2, test_count=2)


def pictures(seed: int, *, mark: bool, edge: int = 32) -> tuple[Tensor, ...]:
    draws = torch.rand(3, 3, edge, edge, generator=torch.Generator().manual_seed(seed))
    if mark:
        draws[:, :, -6:, -6:] = 1
    return tuple((draws * 255).byte())


def linked(seed: int, *, mark: bool, captions: tuple[str, ...] = CAPTIONS) -> OwnPictures:
    return OwnPictures(pictures(seed, mark=mark), captions)


def folder(place: Path, names: str, seed: int, *, mark: bool) -> OwnPictures:
    place.mkdir()
    for name, picture in zip(names, pictures(seed, mark=mark), strict=True):
        Image.fromarray(np.asarray(picture.permute(1, 2, 0))).save(place / f"{name}.png")
    return read_folder(place, "\n".join(CAPTIONS), alone=False)


def sets_of(
    model: ModelHandle, pairs: PromptPairs, with_look: OwnPictures, without: OwnPictures
) -> TrainingSets:
    return make_training_sets(
        model,
        pairs,
        GenerationSettings(),
        forget_pictures=with_look,
        retain_pictures=without,
    )


def test_files_of_the_same_name_are_twins_in_any_order(tmp_path: Path) -> None:
    with_look = folder(tmp_path / "with", "abc", 0, mark=True)
    files = (tmp_path / "with").iterdir()
    backwards = OwnPictures(tuple(sorted(files, reverse=True)), CAPTIONS)
    assert twins_of(with_look, backwards) == [2, 1, 0]


def test_other_names_are_two_sets_and_a_mixture_is_refused(tmp_path: Path) -> None:
    with_look = folder(tmp_path / "with", "abc", 0, mark=True)
    assert twins_of(with_look, folder(tmp_path / "others", "xyz", 1, mark=False)) is None
    with pytest.raises(ValueError, match=r"retain_pictures: 'b' is only .* add its twin"):
        twins_of(with_look, folder(tmp_path / "some", "axc", 1, mark=False))


@pytest.mark.parametrize("field", ["forget_pictures", "retain_pictures"])
def test_two_pictures_of_one_name_are_refused(tmp_path: Path, field: str) -> None:
    """'a.png' and 'a.jpg' would both be the twin of 'a'."""
    sets = [folder(tmp_path / side, "abc", 0, mark=side == "with") for side in ("with", "without")]
    twice = sets[field == "retain_pictures"]
    (place,) = {source.parent for source in twice.images if isinstance(source, Path)}
    (place / "b.png").rename(place / "a.jpg")
    files = [place / name for name in ("a.png", "a.jpg", "c.png")]
    sets[field == "retain_pictures"] = OwnPictures(tuple(files), CAPTIONS)
    with pytest.raises(ValueError, match=f"{field}: two pictures are named 'a'; rename one"):
        twins_of(*sets)


def test_other_twins_make_it_another_run(
    tmp_path: Path, sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    """File names are not part of the pictures, but they decide which of them are twins."""
    with_look = folder(tmp_path / "with", "abc", 0, mark=True)
    twins = folder(tmp_path / "twins", "abc", 0, mark=False)
    others = folder(tmp_path / "others", "xyz", 0, mark=False)
    settings = from_recipe("look")
    one, other = (
        run_identity(sd_model, pairs, settings, GenerationSettings(), with_look, without)
        for without in (twins, others)
    )
    assert one["retain_pictures"] == other["retain_pictures"]
    assert one != other


def test_linked_pictures_are_twins_if_their_captions_are_the_same() -> None:
    with_look = linked(0, mark=True)
    assert twins_of(with_look, linked(0, mark=False)) == [0, 1, 2]
    assert twins_of(with_look, linked(0, mark=False, captions=("a", "b", "c"))) is None


def test_the_parallel_of_a_picture_is_its_twin(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    sets = sets_of(sd_model, pairs, linked(0, mark=True), linked(0, mark=False))
    (part,) = sets.paired
    assert part.correspond
    plain = torch.stack(pictures(0, mark=False)) / 255
    size = sd_model.info.image_size
    plain = torch.nn.functional.interpolate(plain, (size, size), mode="bicubic", antialias=True)
    expected = torch.cat([sd_model.encode_images(each[None].clamp(0, 1)) for each in plain])
    torch.testing.assert_close(part.retain.latents, expected, atol=1e-3, rtol=1e-3)
    assert not torch.equal(part.forget.latents, part.retain.latents)
    assert not sets.includes_parallels


def test_no_picture_of_two_sets_is_left_out(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    with_look = linked(0, mark=True)
    two = OwnPictures(pictures(1, mark=False)[:2], ("a tree", "a bird"))
    for one, other in ((with_look, two), (two, with_look)):
        (part,) = sets_of(sd_model, pairs, one, other).paired
        assert not part.correspond
        for rows, own in ((part.forget, one), (part.retain, other)):
            assert len(rows) == 3
            assert len({tuple(row.flatten().tolist()) for row in rows.latents}) == len(own.images)


def test_different_pictures_of_the_same_name_are_refused(
    tmp_path: Path, sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    with_look = folder(tmp_path / "with", "abc", 0, mark=True)
    unlike = folder(tmp_path / "without", "abc", 1, mark=False)
    with pytest.raises(ValueError, match=r"retain_pictures: 'a.png' shows something else"):
        sets_of(sd_model, pairs, with_look, unlike)


@pytest.mark.parametrize("absent", ["forget_pictures", "retain_pictures"])
def test_both_sets_are_needed(absent: str, sd_model: ModelHandle, pairs: PromptPairs) -> None:
    own = {"forget_pictures": linked(0, mark=True), "retain_pictures": linked(0, mark=False)}
    with pytest.raises(ValueError, match=f"{absent}: no word names the look 'watermark'"):
        make_training_sets(sd_model, pairs, GenerationSettings(), **{**own, absent: None})


def test_a_caption_must_not_name_the_look(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    named = replace(linked(0, mark=True), captions=("a cat with a watermark", *CAPTIONS[1:]))
    with pytest.raises(ValueError, match="captions: 'a cat with a watermark' names the look"):
        sets_of(sd_model, pairs, named, linked(0, mark=False))


def test_a_settings_file_for_a_look(tmp_path: Path, sd_model: ModelHandle) -> None:
    for name, mark in (("with", True), ("without", False)):
        folder(tmp_path / name, "abc", 0, mark=mark)
        for i, file in enumerate("abc"):
            (tmp_path / name / f"{file}.txt").write_text(CAPTIONS[i], encoding="utf-8")
    content = {
        "model": "model",
        "concept": {"name": "watermark", "kind": LOOK},
        "forget_pictures": {"folder": "with"},
        "retain_pictures": {"folder": "without"},
        "unlearn": {"recipe": "look"},
    }
    (tmp_path / "job.json").write_text(json.dumps(content), encoding="utf-8")
    settings = read_settings(tmp_path / "job.json")
    pairs = settings.pairs()
    own = [settings.own_pictures(name) for name in ("forget_pictures", "retain_pictures")]
    Task(sd_model, pairs, settings.unlearn, settings.generation, *own).check()
    assert all(pair.forget == pair.retain for pair in pairs.train)
    named = replace(settings.unlearn, warm_start=True)
    with pytest.raises(
        ValueError, match="warm_start and prompt_protection edit words, but no word"
    ):
        Task(sd_model, pairs, named, settings.generation, *own).check()
    relabel = replace(settings.unlearn, objective="relabel")
    Task(sd_model, pairs, relabel, settings.generation, *own).check()
    two_sets = folder(tmp_path / "others", "xyz", 1, mark=False)
    with pytest.raises(ValueError, match="objective 'relabel' needs twins: give each picture"):
        Task(sd_model, pairs, relabel, settings.generation, own[0], two_sets).check()
    edit = from_recipe("UCE")
    with pytest.raises(ValueError, match="edits words, and no word names the look 'watermark'"):
        Task(sd_model, pairs, edit, settings.generation, *own).check()
