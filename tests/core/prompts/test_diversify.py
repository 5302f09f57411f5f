"""Presets, made-up names and files of prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.prompts.concept import KINDS, LOOK, ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.files import FORMAT, read_prompt_file, read_prompts, write_prompts
from unlearn_core.prompts.made_up_names import gibberish, made_up_names
from unlearn_core.prompts.pairs import PromptPair, PromptPairs
from unlearn_core.prompts.presets import PRESETS

CAT = ForgetConcept("cat", "object", ("kitten",), ("dog", "fox"))


@pytest.fixture
def cats() -> PromptPairs:
    return diversify(
        CAT,
        ["a {concept} in {place}", "one {concept}, {time}"],
        {"place": ("town", "space"), "time": ("noon", "night")},
        train_count=4,
        test_count=3,
    )


def test_there_is_a_preset_for_every_kind() -> None:
    assert set(PRESETS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_yields_many_different_prompts(kind: str) -> None:
    preset = PRESETS[kind]
    concept = ForgetConcept("zebra", kind, (), ("horse",))
    pairs = diversify(concept, preset.templates, preset.dimensions, train_count=200, test_count=50)
    least = 100 if kind != "class" else 3
    assert len({pair.forget for pair in pairs.train}) >= least
    assert not {p.forget for p in pairs.train} & {p.forget for p in pairs.test}
    names = {name for pair in pairs.train for name in pair.values}
    assert names == set(preset.dimensions)


@given(st.integers(0, 60), st.integers(0, 1000))
def test_made_up_names_are_different_and_repeatable(count: int, seed: int) -> None:
    for generate in (gibberish, made_up_names):
        names = generate(count, seed)
        assert len(set(names)) == len(names) == count
        assert generate(count, seed) == names
        assert all(name.replace(" ", "").isalpha() for name in names)


def test_made_up_names_are_used_as_often_as_real_replacements() -> None:
    pairs = diversify(
        CAT,
        ["a {concept} in {place}"],
        {"place": tuple("abcdefgh")},
        train_count=60,
        test_count=6,
        invented_names=2,
        gibberish_names=2,
    )
    replacements = [pair.replacement for pair in pairs.train]
    expected = {"dog", "fox", *made_up_names(2, 0), *gibberish(2, 0)}
    assert set(replacements) == expected
    assert {replacements.count(name) for name in expected} == {10}
    assert pairs.concept == CAT  # a judge knows real replacements only


def test_a_file_contains_the_complete_prompt_set(cats: PromptPairs) -> None:
    assert read_prompts(write_prompts(cats)) == cats


def test_an_edited_prompt_keeps_only_the_values_it_contains() -> None:
    """Prompts are edited in the table or in the file."""
    pairs = diversify(
        ForgetConcept("ink", "style", (), ("oil", "pixel")),
        ["a {object} in {concept} style {place}"],
        {"object": ("cat", "big dog"), "place": ("at sea", "in town")},
        train_count=4,
        test_count=1,
    )
    content = json.loads(write_prompts(pairs))
    row = content["train"][0]
    thing, place, style = row["values"]["object"], row["values"]["place"], row["replacement"]

    def read(**changes: str) -> PromptPair:
        content["train"][0] = {**row, **changes}
        return read_prompts(json.dumps(content)).train[0]

    assert read() == pairs.train[0]
    assert read(forget=f"the {thing.upper()}, ink, {place}").values == row["values"]
    assert read(forget=f"a fox in ink style {place}").values == {"place": place}
    assert read(forget=f"a {thing}s in ink style").values == {}
    assert read(retain=f"a {thing} {place}").replacement == ""
    assert read(retain=f"{style}: {place}").values == {"place": place}
    assert read(retain=f"{style}: {place}").replacement == style


def changed_text(cats: PromptPairs, change: Any) -> str:
    content = json.loads(write_prompts(cats))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="prompts"), FORMAT),
        (lambda c: c.pop("concept"), "concept must be an object"),
        (lambda c: c["concept"].update(name=""), "concept must name"),
        (lambda c: c["concept"].update(kind="planet"), "kind must be one of"),
        (lambda c: c["concept"].update(synonyms="kitten"), "concept.synonyms must be a list"),
        (lambda c: c.update(train=[]), "'train' must be a list of one pair"),
        (lambda c: c["train"][1].update(forget="a dog"), r"train\[1\].forget does not mention"),
        (lambda c: c["test"][0].update(retain="a kitten"), r"test\[0\].retain must not mention"),
        (lambda c: c["test"][0].update(values=[]), r"test\[0\].values must be an object"),
        (lambda c: c["test"][0].update(replacement=None), r"test\[0\].replacement must be text"),
        (lambda c: c["train"].append("a cat"), r"train\[4\] must be an object"),
        (lambda c: c.update(dimensions={"place": [1]}), "dimensions.place must be a list"),
    ],
)
def test_a_bad_file_is_refused_by_field(cats: PromptPairs, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_prompts(changed_text(cats, change))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"format": NaN}'])
def test_text_that_is_not_a_prompt_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^prompts: "):
        read_prompts(text)


def test_a_file_is_for_its_own_concept(cats: PromptPairs, tmp_path: Path) -> None:
    file = tmp_path / "cats.json"
    file.write_text("\ufeff" + write_prompts(cats), encoding="utf-8")  # Windows editors' mark
    assert read_prompt_file(file, CAT) == cats
    for other, message in (
        (replace(CAT, name="lion"), "its name is 'cat' and not 'lion'"),
        (replace(CAT, kind="style"), "its kind is 'object' and not 'style'"),
        (replace(CAT, synonyms=("tom",)), "without 'tom' among its synonyms"),
        (replace(CAT, replacements=("fox", "owl")), "without 'owl' among its replacements"),
    ):
        with pytest.raises(ValueError, match=message):
            read_prompt_file(file, other)
    # The recipient of a shared file need not list its author's synonyms and replacements.
    assert read_prompt_file(file, ForgetConcept("cat", "object")) == cats
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="prompts: cannot read 'cats.json'"):
        read_prompt_file(file, CAT)
    with pytest.raises(ValueError, match="prompts: cannot read 'none.json'"):
        read_prompt_file(tmp_path / "none.json", CAT)


def test_names_with_letters_beyond_ascii_survive(cats: PromptPairs) -> None:
    concept = replace(CAT, name="Café Müller 猫", replacements=("éclair",))
    pair = PromptPair("a Café Müller 猫 in 東京", "an éclair in 東京", "éclair", {"place": "東京"})
    pairs = replace(cats, concept=concept, train=(pair,), test=(pair,))
    assert read_prompts(write_prompts(pairs)) == pairs


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20))
def test_the_held_out_pairs_do_not_depend_on_train_count(few: int, more: int, seed: int) -> None:
    few, more = sorted((few, more))
    small, large = (
        diversify(
            CAT,
            ["a {concept} in {place}", "one {concept}, {time}"],
            {"place": ("town", "space", "woods"), "time": ("noon", "night", "dawn")},
            train_count=count,
            test_count=5,
            seed=seed,
        )
        for count in (few, more)
    )
    assert small.test == large.test
    assert small.train == large.train[:few], "more pairs only add to fewer"


def test_both_prompts_of_a_look_are_the_same() -> None:
    concept = ForgetConcept("grain", LOOK, replacements=("smooth",))
    dimensions = {"place": ("here", "there", "home")}
    pairs = diversify(concept, ["a cat, by {place}"], dimensions, train_count=4, test_count=2)
    for pair in (*pairs.train, *pairs.test):
        assert pair.forget == pair.retain == f"a cat, by {pair.values['place']}"
        assert pair.replacement == ""
    assert read_prompts(write_prompts(pairs)) == pairs
    edited = write_prompts(pairs).replace('"forget": "a cat', '"forget": "a dog', 1)
    with pytest.raises(ValueError, match="both prompts of a pair must be the same for a look"):
        read_prompts(edited)
    with pytest.raises(ValueError, match="mentions 'grain', but no word names a look"):
        diversify(concept, ["grain {place}"], dimensions, train_count=1, test_count=1)
