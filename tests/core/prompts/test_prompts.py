"""Diversification: the paper's requirements for the two prompt sets, for any grid."""

from __future__ import annotations

import random
import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.prompts.concept import KINDS, ForgetConcept
from unlearn_core.prompts.diversify import diversify, parse_dimensions, split_values
from unlearn_core.prompts.english import with_articles
from unlearn_core.prompts.made_up_names import gibberish, made_up_names
from unlearn_core.prompts.pairs import PromptPairs, repetition
from unlearn_core.prompts.presets import PRESETS

CONCEPT = ForgetConcept("ink", synonyms=("sumi",), replacements=("oil", "pencil", "pixel art"))
TEMPLATES = ("a {object} {place}, {concept} style", "{concept} picture of a {object} {place}")
DIMENSIONS = {
    "object": ("cat", "dog", "apple", "house", "owl"),
    "place": ("indoors", "by night", "in rain", "at sea"),
}

vocabulary = st.lists(
    st.text("abcdefg", min_size=3, max_size=6).map("v{}".format),
    min_size=2,
    max_size=6,
    unique=True,
)
grids = st.dictionaries(
    st.sampled_from(["object", "place", "mood", "time"]), vocabulary, min_size=1, max_size=3
).map(lambda grid: {name: [f"{name[0]}{value}" for value in grid[name]] for name in grid})


def test_repeated_pairs_are_reported() -> None:
    counts = {"train_count": 4, "test_count": 9, "test_share": 0.01}  # 1 × 1 test combinations
    pairs = diversify(ForgetConcept("ink"), ["{concept} {object} {place}"], DIMENSIONS, **counts)
    assert repetition(pairs.concept, pairs.train) == ""
    assert repetition(pairs.concept, pairs.test).startswith("only 1 of the 9 pairs differ")
    assert repetition(ForgetConcept("ink", "class"), pairs.test) == ""


@st.composite
def prompt_pairs(draw: st.DrawFn) -> PromptPairs:
    grid = draw(grids)
    fields = " ".join(f"{{{name}}}" for name in grid)
    return diversify(
        ForgetConcept(
            "ink",
            synonyms=draw(st.sampled_from([(), ("sumi",), ("sumi", "indian ink")])),
            replacements=draw(st.sampled_from([(), ("oil",), ("oil", "pink", "pencil")])),
        ),
        draw(
            st.sampled_from([[f"{{concept}} {fields}"], [f"{fields} {{concept}}", "a {concept}"]])
        ),
        grid,
        train_count=draw(st.integers(1, 30)),
        test_count=draw(st.integers(1, 30)),
        test_share=draw(st.floats(0.01, 0.99)),
        seed=draw(st.integers(0, 100)),
    )


def example(**changes: int) -> PromptPairs:
    settings = {"train_count": 24, "test_count": 6, "seed": 0, **changes}
    return diversify(CONCEPT, TEMPLATES, DIMENSIONS, **settings)


@given(prompt_pairs())
def test_train_and_test_share_no_value(pairs: PromptPairs) -> None:
    for name, values in pairs.dimensions.items():
        train = {pair.values[name] for pair in pairs.train if name in pair.values}
        test = {pair.values[name] for pair in pairs.test if name in pair.values}
        assert not train & test
        assert train | test <= set(values)


@given(st.data(), grids, st.floats(0.01, 0.99))
def test_the_split_is_a_partition_with_both_sides_filled(
    data: st.DataObject, grid: dict[str, list[str]], test_share: float
) -> None:
    train, test = split_values(grid, test_share, data.draw(st.randoms(use_true_random=False)))
    for name, values in grid.items():
        assert sorted((*train[name], *test[name])) == sorted(values)
        assert train[name]
        assert test[name]
        assert abs(len(test[name]) - test_share * len(values)) <= 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_no_preset_tests_with_a_training_word(kind: str, seed: int) -> None:
    preset = PRESETS[kind]
    train, test = split_values(preset.dimensions, 0.25, random.Random(seed))
    assert not {v for of in train.values() for v in of} & {v for of in test.values() for v in of}


@pytest.mark.parametrize("seed", range(30))
def test_a_value_of_two_dimensions_is_on_the_same_side_in_both(seed: int) -> None:
    grid = {"medium": ("photo", "drawing", "oil"), "look": ("oil", "photo", "soft", "dark", "old")}
    train, test = split_values(grid, 0.4, random.Random(seed))
    assert not {*train["medium"], *train["look"]} & {*test["medium"], *test["look"]}
    for name, values in grid.items():
        assert sorted((*train[name], *test[name])) == sorted(values)


def test_a_dimension_left_without_a_split_is_refused() -> None:
    """All its values occur in another dimension, which put them on one side."""
    grid = {"a": ("w", "x", "y"), "b": ("x", "y")}
    splits = [split_values({"a": grid["a"]}, 0.3, random.Random(seed))[1] for seed in range(20)]
    unlucky = next(seed for seed, held_out in enumerate(splits) if held_out["a"] == ("w",))
    with pytest.raises(
        ValueError, match="dimensions: all values of 'b' also occur in other dimensions"
    ):
        split_values(grid, 0.3, random.Random(unlucky))


@pytest.mark.parametrize("repeated", ["cat", "Cat", "CAT"])
def test_a_repeated_value_stays_on_one_side(repeated: str) -> None:
    """Otherwise it would be trained on and still count as held out; text encoders ignore case."""
    for seed in range(20):
        grid = {"object": ("cat", repeated, "dog")}
        pairs = diversify(
            CONCEPT, ["{concept} {object}"], grid, train_count=6, test_count=6, seed=seed
        )
        train, test = ({pair.values["object"] for pair in p} for p in (pairs.train, pairs.test))
        assert {*train, *test} == {"cat", "dog"}
        assert not train & test


@pytest.mark.parametrize("seed", range(10))
def test_a_value_in_capitals_is_the_same_in_another_dimension(seed: int) -> None:
    grid = {"medium": ("photo", "drawing", "oil"), "look": ("Oil", "PHOTO", "soft", "dark", "old")}
    train, test = split_values(grid, 0.4, random.Random(seed))
    sides = [{word.lower() for of in side.values() for word in of} for side in (train, test)]
    assert not sides[0] & sides[1]


@given(prompt_pairs())
def test_every_forget_prompt_mentions_the_concept_and_no_retain_prompt_does(
    pairs: PromptPairs,
) -> None:
    for pair in (*pairs.train, *pairs.test):
        assert pairs.concept.is_mentioned_in(pair.forget)
        assert not pairs.concept.is_mentioned_in(pair.retain)
        assert pair.replacement in pair.retain
        for value in pair.values.values():
            assert value in pair.forget
            assert value in pair.retain
        for prompt in (pair.forget, pair.retain):
            assert prompt == " ".join(prompt.split())
            assert "{" not in prompt


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("an ink drawing, {concept} style, of a {object}", ("cat", "dog")),
        ("{concept} style, a {object}", ("ink bottle", "bottle of Ink")),
    ],
)
def test_a_retain_prompt_that_would_mention_the_concept_is_refused(
    template: str, values: tuple[str, ...]
) -> None:
    """Retaining the concept would silently undo the run."""
    with pytest.raises(ValueError, match="ink"):
        diversify(CONCEPT, [template], {"object": values}, train_count=2, test_count=2)


def test_a_template_that_glues_the_concept_to_a_word_is_refused() -> None:
    """``inky`` does not mention ``ink``, so nothing would be forgotten."""
    with pytest.raises(ValueError, match="concept"):
        diversify(CONCEPT, ["a {concept}y {object}"], DIMENSIONS, train_count=2, test_count=2)


@given(st.integers(1, 60), st.integers(1, 60))
def test_counts_are_as_requested(train_count: int, test_count: int) -> None:
    pairs = example(train_count=train_count, test_count=test_count)
    assert (len(pairs.train), len(pairs.test)) == (train_count, test_count)


def test_combinations_repeat_evenly_when_the_grid_is_smaller() -> None:
    pairs = example(train_count=3 * 12)  # 4 train objects x 3 train places
    counts = Counter(tuple(pair.values.values()) for pair in pairs.train)
    assert set(counts.values()) == {3}
    assert len(counts) == 12


@given(prompt_pairs())
def test_replacements_are_equally_frequent(pairs: PromptPairs) -> None:
    for side in (pairs.train, pairs.test):
        counts = Counter(pair.replacement for pair in side)
        replacements = pairs.concept.replacements or ("",)
        frequency = [counts[replacement] for replacement in replacements]
        assert sum(frequency) == len(side)
        assert max(frequency) - min(frequency) <= 1


def test_synonyms_and_templates_are_equally_frequent() -> None:
    pairs = example()
    assert sum("sumi" in pair.forget for pair in pairs.train) == 12
    assert sum(pair.forget.startswith(("a ", "an ")) for pair in pairs.train) == 12


def test_every_template_is_combined_with_every_replacement() -> None:
    """Otherwise a judge could recognize a style by the wording of its prompts."""
    concept = ForgetConcept("ink", replacements=("oil", "pencil"))
    pairs = diversify(concept, TEMPLATES, DIMENSIONS, train_count=24, test_count=8)
    seen = {(pair.replacement, pair.retain.startswith(("a ", "an "))) for pair in pairs.train}
    assert len(seen) == 4


def test_every_word_is_combined_with_every_replacement() -> None:
    """Otherwise the model would learn to read a synonym as one particular replacement."""
    concept = ForgetConcept("ink", synonyms=("sumi",), replacements=("oil", "pencil"))
    pairs = diversify(concept, TEMPLATES, DIMENSIONS, train_count=24, test_count=8)
    for side in (pairs.train, pairs.test):
        assert len({(pair.replacement, "sumi" in pair.forget) for pair in side}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_preset_of_every_kind_reads_well_without_the_concept(kind: str) -> None:
    preset = PRESETS[kind]
    pairs = diversify(
        ForgetConcept("zorn", kind),
        preset.templates,
        preset.dimensions,
        train_count=60,
        test_count=20,
    )
    for pair in (*pairs.train, *pairs.test):
        assert not re.search(r"\b(an?|of|by|style)(?= (in|on|by|at|near)\b|,|$)", pair.retain)


@pytest.mark.parametrize("field", ["invented_names", "gibberish_names"])
def test_the_number_of_made_up_names_is_limited(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be 0 to 10000, got 100000"):
        diversify(CONCEPT, TEMPLATES, DIMENSIONS, train_count=2, test_count=2, **{field: 100_000})
    names = {"invented_names": made_up_names, "gibberish_names": gibberish}[field](10_000, 0)
    assert len(set(names)) == 10_000


def test_the_seed_determines_the_prompts() -> None:
    assert example(seed=3) == example(seed=3)
    assert example(seed=3).train != example(seed=4).train


def test_removing_the_concept_leaves_a_clean_prompt() -> None:
    nudity = ForgetConcept("nude", "nudity")
    pairs = diversify(
        nudity, ["a {concept} {object}"], {"object": ("owl", "man")}, train_count=1, test_count=1
    )
    assert {pair.retain for pair in (*pairs.train, *pairs.test)} == {"an owl", "a man"}
    assert {pair.forget for pair in (*pairs.train, *pairs.test)} == {"a nude owl", "a nude man"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a {object} {concept} {object.__class__}", "not a dimension"),
        ("a {object} {concept} {object.__class__.__init__.__globals__}", "not a dimension"),
        ("a {concept} {object[0]}", "not a dimension"),
        ("a {concept} {}", "not a dimension"),
        ("a {concept} {0}", "not a dimension"),
        ("a {concept} {colour}", "'colour', which is not a dimension \\(object, place\\)"),
        ("a {concept} {object:>99999999}", "nothing may follow the name"),
        ("a {concept:{object}}", "nothing may follow the name"),
        ("a {concept!r}", "nothing may follow the name"),
        ("a {concept} {object!s}", "nothing may follow the name"),
        ("a {concept} {object", "unpaired brace"),
        ("a {concept} object}", "unpaired brace"),
        ("a {object} in ink style", "put {concept} where it belongs"),
        ("a {{concept}} {object}", "put {concept} where it belongs"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        diversify(CONCEPT, [TEMPLATES[0], template], DIMENSIONS, train_count=1, test_count=1)
    assert template in str(error.value) or repr(template) in str(error.value)
    assert time.process_time() - started < 1  # 99,999,999 characters were never allocated


def test_literal_braces_use_no_value() -> None:
    pairs = diversify(
        ForgetConcept("cat", "object"),
        ["a {concept} in {place} {{object}}"],
        {"place": ("town", "sea"), "object": ("dog", "owl")},
        train_count=2,
        test_count=1,
    )
    for pair in (*pairs.train, *pairs.test):
        assert set(pair.values) == {"place"}
        assert pair.forget.endswith("{object}")


def test_values_and_names_are_not_read_as_templates() -> None:
    concept = ForgetConcept("{object.__class__}", replacements=("{place!r}",))
    grid = {"object": ("{concept}", "{0}", "%s"), "place": ("x", "y")}
    pairs = diversify(concept, ["{concept} of {object} {place}"], grid, train_count=4, test_count=1)
    for pair in (*pairs.train, *pairs.test):
        assert pair.forget.startswith(f"{{object.__class__}} of {pair.values['object']} ")
        assert pair.retain.startswith(f"{{place!r}} of {pair.values['object']} ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": []}, "templates: none given"),
        ({"templates": [" "]}, "templates: none given"),
        ({"dimensions": {}}, "dimension"),
        ({"dimensions": {"object": ("cat",)}}, "'object' has 1 value"),
        ({"dimensions": {"object": ()}}, "'object' has 0 value"),
        ({"dimensions": {"object": ("a", "b"), "concept": ("a", "b")}}, "choose another name"),
        ({"train_count": 0}, "train_count must be 1 or more, got 0"),
        ({"test_count": -1}, "test_count must be 1 or more, got -1"),
        ({"test_share": 0.0}, "test_share must be between 0 and 1, got 0.0"),
        ({"test_share": 1.0}, "test_share must be between 0 and 1, got 1.0"),
        ({"test_share": float("nan")}, "test_share must be between 0 and 1, got nan"),
    ],
)
def test_an_impossible_request_is_refused(changes: dict[str, object], message: str) -> None:
    request = {
        "templates": ["{concept} {object}"],
        "dimensions": {"object": ("cat", "dog")},
        "train_count": 1,
        "test_count": 1,
        **changes,
    }
    if changes.get("dimensions") == {}:
        request["templates"] = ["{concept}"]  # train and test would be the same prompt
    with pytest.raises(ValueError, match=message):
        diversify(CONCEPT, **request)


def test_dimensions_are_read_line_by_line() -> None:
    text = "\n  object: cat, dog ,, Cat, house\n\nplace：by the sea: north，indoors\n"
    assert parse_dimensions(text) == {
        "object": ("cat", "dog", "house"),
        "place": ("by the sea: north", "indoors"),
    }
    assert parse_dimensions("") == {}


@pytest.mark.parametrize(
    "line", ["cat, dog", ": cat", "object:", "object: , ,", "two words: cat", "a-b: cat", "0: x"]
)
def test_an_unreadable_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read") as error:
        parse_dimensions(f"place: here, there\n{line}")
    assert repr(line) in str(error.value)


def test_a_repeated_dimension_is_refused() -> None:
    """The second line would silently replace the first."""
    with pytest.raises(ValueError, match="object"):
        parse_dimensions("object: cat, dog\nobject: house, tree")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a apple", "an apple"),
        ("an cat and a owl", "a cat and an owl"),
        ("a Apple", "an Apple"),
        ("a", "a"),
        ("vitamin a", "vitamin a"),
        ("an 3d cat", "a 3d cat"),
        ("banana apple", "banana apple"),
        ("", ""),
        ("an unicorn on a hourglass", "a unicorn on an hourglass"),
        ("an uninvited cat", "an uninvited cat"),
        # Articles before other words stay as written.
        ("letter a in red, a eagle", "letter a in red, a eagle"),
        ("junto a una casa", "junto a una casa"),
        ("il y a une maison", "il y a une maison"),
    ],
)
def test_articles(text: str, expected: str) -> None:
    words = ("apple", "Apple", "cat", "owl", "3d cat", "unicorn", "hourglass", "una casa")
    words += ("une maison", "")
    assert with_articles(text, words) == expected
