"""Presets, made-up names and files of prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.prompts.concept import KINDS, ForgetConcept
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
def test_a_preset_makes_many_different_prompts(kind: str) -> None:
    preset = PRESETS[kind]
    concept = ForgetConcept("zebra", kind, (), ("horse",))
    pairs = diversify(concept, preset.templates, preset.dimensions, train_count=200, test_count=50)
    least = 100 if kind != "class" else 3
    assert len({pair.forget for pair in pairs.train}) >= least
    assert not {p.forget for p in pairs.train} & {p.forget for p in pairs.test}
    used = {name for pair in pairs.train for name in pair.values}
    assert used == set(preset.dimensions)


@given(st.integers(0, 60), st.integers(0, 1000))
def test_made_up_names_are_different_and_repeatable(count: int, seed: int) -> None:
    for make in (gibberish, made_up_names):
        names = make(count, seed)
        assert len(set(names)) == len(names) == count
        assert make(count, seed) == names
        assert all(name.replace(" ", "").isalpha() for name in names)


def test_made_up_names_take_the_concepts_place_as_often_as_real_ones() -> None:
    pairs = diversify(
        CAT,
        ["a {concept} in {place}"],
        {"place": tuple("abcdefgh")},
        train_count=60,
        test_count=6,
        invented_names=2,
        gibberish_names=2,
    )
    found = [pair.replacement for pair in pairs.train]
    expected = {"dog", "fox", *made_up_names(2, 0), *gibberish(2, 0)}
    assert set(found) == expected
    assert {found.count(name) for name in expected} == {10}
    assert pairs.concept == CAT  # the judge is asked for what is real


def test_a_file_holds_all_of_a_prompt_set(cats: PromptPairs) -> None:
    assert read_prompts(write_prompts(cats)) == cats


def test_a_rewritten_prompt_is_judged_by_what_it_asks_for() -> None:
    """Edited in the table, or in the file."""
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


def spoiled(cats: PromptPairs, change: Any) -> str:
    content = json.loads(write_prompts(cats))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="prompts"), FORMAT),
        (lambda c: c.pop("concept"), "concept must be an object"),
        (lambda c: c["concept"].update(name=""), "concept must name"),
        (lambda c: c["concept"].update(kind="planet"), "kind must be one of"),
        (lambda c: c["concept"].update(synonyms="kitten"), "concept.synonyms must be a list"),
        (lambda c: c.update(train=[]), "'train' must list one pair"),
        (lambda c: c["train"][1].update(forget="a dog"), r"train\[1\].forget does not mention"),
        (lambda c: c["test"][0].update(retain="a kitten"), r"test\[0\].retain is to be kept"),
        (lambda c: c["test"][0].update(values=[]), r"test\[0\].values must be an object"),
        (lambda c: c["test"][0].update(replacement=None), r"test\[0\].replacement must be text"),
        (lambda c: c["train"].append("a cat"), r"train\[4\] must be an object"),
        (lambda c: c.update(dimensions={"place": [1]}), "dimensions.place must be a list"),
    ],
)
def test_a_bad_file_is_refused_by_field(cats: PromptPairs, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_prompts(spoiled(cats, change))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"format": NaN}'])
def test_what_is_no_prompt_set_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="^prompts: "):
        read_prompts(text)


def test_a_file_is_for_its_own_concept(cats: PromptPairs, tmp_path: Path) -> None:
    file = tmp_path / "cats.json"
    file.write_text("\ufeff" + write_prompts(cats), encoding="utf-8")  # as Windows' editors save
    assert read_prompt_file(file, CAT) == cats
    for other, said in (
        (replace(CAT, name="lion"), "its name is 'cat' and not 'lion'"),
        (replace(CAT, kind="style"), "its kind is 'object' and not 'style'"),
        (replace(CAT, synonyms=("tom",)), "without 'tom' among its synonyms"),
        (replace(CAT, replacements=("fox", "owl")), "without 'owl' among its replacements"),
    ):
        with pytest.raises(ValueError, match=said):
            read_prompt_file(file, other)
    # Who has it from another need not know all that this one knew.
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
