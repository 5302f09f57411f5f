"""Mentions of the concept: recognition, replacement and removal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.models.text import clip_tokenizer
from unlearn_core.prompts.concept import KINDS, ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.mentions import LETTER, UNSPACED

# Names as people type them: letters, digits and marks, several words for a person or an artist.
words = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)
names = st.lists(words, min_size=1, max_size=3).map(" ".join)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat in ink style", True),
        ("INK drawing", True),
        ("Ink", True),
        ("a drawing, ink.", True),
        ("ink-like strokes", True),
        ("(ink)", True),
        ("a pink cat", False),
        ("inkwell", False),
        ("ink2", True),
        ("drinking_ink_", True),
        ("ink_wash painting", True),
        ("in k", False),
        ("", False),
    ],
)
def test_a_mention_is_a_whole_word_in_any_case(prompt: str, expected: bool) -> None:
    assert ForgetConcept("ink").is_mentioned_in(prompt) is expected


@pytest.mark.parametrize("prompt", ["ink_wash painting", "(ink:1.3)", "ink2", "#ink", "ink、猫"])
def test_a_mention_is_what_clip_reads_as_the_word(prompt: str) -> None:
    tokenizer = clip_tokenizer()
    word = tokenizer("ink", add_special_tokens=False).input_ids
    assert word[0] in tokenizer(prompt, add_special_tokens=False).input_ids
    assert ForgetConcept("ink").is_mentioned_in(prompt)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("Van Gogh", "a field by van_gogh"),
        ("Van Gogh", "a field, vangogh style"),
        ("Van Gogh", "a field by Van-Gogh"),
        ("van_gogh", "a field by Van Gogh"),
        ("Van Gogh", "a field by (van:1.2) gogh"),
        ("Van Gogh", "van (gogh)"),
        ("Van Gogh", r"a field \(van gogh\)"),
        ("Saber (Fate)", r"a portrait of saber \(fate\)"),
        (r"saber \(fate\)", "a portrait of saber (fate)"),
        ("saber_(fate)", "a portrait of (saber fate:1.2)"),
        ("[oc] Mira", "a portrait of mira, oc mira"),
        ("Van Gogh", "a field <lora:vanGogh_v2:0.8>"),
        ("Van Gogh", "embedding:van-gogh"),
        ("M.C. Escher", "stairs by M. C. Escher"),
        ("M.C. Escher", "stairs by MC Escher"),
        ("MC Escher", "stairs by m.c. escher"),
        ("J.R.R. Tolkien", "a map by JRR Tolkien"),
        ("Mrs Doubtfire", "a portrait of Mrs. Doubtfire"),
        ("Salvador Dalí", unicodedata.normalize("NFD", "a clock by Salvador Dalí")),
        (unicodedata.normalize("NFD", "Salvador Dalí"), "a clock by Salvador Dalí"),
        ("Salvador Dali", "a clock by Salvador Dalí"),
        ("Salvador Dalí", "a clock by SALVADOR DALI"),
        ("Πικάσο", "ΠΙΚΑΣΟ"),
        ("Strauß", "a portrait of Strauss"),
        ("Strauss", "a portrait of Strauß"),
        ("ink", "ｉｎｋ style"),
        ("ink", "in\u00adk style"),
        ("水墨", "一幅水墨画"),
        ("ink", "一幅ink画"),
        ("が", unicodedata.normalize("NFD", "まんが")),
        ("수묵화", "수묵화로 그린 고양이"),
        ("수묵화", unicodedata.normalize("NFD", "고양이 수묵화")),
        ("หมึก", "แมวสีหมึกดำ"),
        ("कला", "कला शैली"),
    ],
)
def test_one_name_in_many_spellings(name: str, prompt: str) -> None:
    concept = ForgetConcept(name)
    assert concept.is_mentioned_in(prompt)
    for replacement in ("", "Xyzzy"):
        assert not concept.is_mentioned_in(concept.replaced_in(prompt, replacement))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("van gogh", "van, gogh"),  # two tags
        ("saber (fate)", "a saber, fateful"),
        ("saber (fate)", "a saber fateful"),
        ("(", "a cat"),
        ("( )", "a cat (brown)"),
        ("cafe", "cafeteria"),
        ("か", "が"),
        ("먹", "점먹통"),
        ("कल", "कला शैली"),  # another word: the vowel sign is part of it
        ("13", "1913"),
        ("Degas", "Dégagés"),
    ],
)
def test_another_word_is_no_mention(name: str, prompt: str) -> None:
    assert not ForgetConcept(name).is_mentioned_in(prompt)


@pytest.mark.parametrize("marks", ["[" * 64, "[(" * 32, "[ " * 32, "[a" * 16])
def test_a_name_full_of_brackets_is_found_at_once(marks: str) -> None:
    """A pattern with one optional part for each bracket would take years."""
    concept = ForgetConcept(f"gog{marks}x")
    assert concept.is_mentioned_in(f"a cat by gog{marks}x")
    assert not concept.is_mentioned_in(f"a cat by gog{marks}{marks}y")


@pytest.mark.parametrize(
    ("prompt", "replaced", "rest"),
    [
        ("ink_wash painting", "oil_wash painting", "painting"),
        ("1girl, ink_style, solo", "1girl, oil_style, solo", "1girl, solo"),
        ("1girl, drawn_with_ink, solo", "1girl, drawn_with_oil, solo", "1girl, drawn_with, solo"),
        (r"cat \(ink\), solo", r"cat \(oil\), solo", "cat, solo"),
        ("cat <lora:ink:0.8>, solo", "cat <lora:oil:0.8>, solo", "cat, solo"),
        ("cat, embedding:ink-v2, solo", "cat, embedding:oil-v2, solo", "cat, solo"),
        ("(ink:1.3) cat", "(oil:1.3) cat", "cat"),
    ],
)
def test_tags_and_prompt_syntax_are_replaced_whole(prompt: str, replaced: str, rest: str) -> None:
    assert ForgetConcept("ink").replaced_in(prompt, "oil") == replaced
    assert ForgetConcept("ink").replaced_in(prompt, "") == rest


def test_a_template_may_join_the_concept_with_underscores() -> None:
    grid = {"object": ("cat", "dog")}
    pairs = diversify(
        ForgetConcept("ink", replacements=("oil",)),
        ["{object}, {concept}_style"],
        grid,
        train_count=1,
        test_count=1,
    )
    assert {pair.forget for pair in (*pairs.train, *pairs.test)} == {
        "cat, ink_style",
        "dog, ink_style",
    }


def test_a_synonym_is_a_mention() -> None:
    concept = ForgetConcept("nude", "nudity", synonyms=("naked", "without clothes"))
    assert concept.is_mentioned_in("a Naked man")
    assert concept.is_mentioned_in("a man WITHOUT CLOTHES on a beach")
    assert not concept.is_mentioned_in("a man without a hat")


@pytest.mark.parametrize("name", ["c++", "a.b", "(ink", "x|y", "[a-z]", "50%", "\\d", "^", "o*"])
def test_a_name_is_not_read_as_a_regular_expression(name: str) -> None:
    concept = ForgetConcept(name)
    assert concept.is_mentioned_in(f"art in {name} style")
    assert not concept.is_mentioned_in("art in axb oo 5 y style")
    assert concept.replaced_in(f"art in {name} style", r"\1 \g<0>") == r"art in \1 \g<0> style"


def test_the_longest_word_is_replaced_first() -> None:
    concept = ForgetConcept("gogh", synonyms=("van gogh", "vincent van gogh"))
    assert concept.words == ("vincent van gogh", "van gogh", "gogh")
    assert concept.replaced_in("by Vincent van Gogh and Gogh", "Bob") == "by Bob and Bob"


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("a nude  man, nude", "a man"),
        ("1girl, nude, beach", "1girl, beach"),
        ("nude, 1girl", "1girl"),
        ("a harbour at the sea in the style of NUDE", "a harbour at the sea"),
        ("a harbour, at dawn, by nude", "a harbour, at dawn"),
        ("a harbour at dawn, nude style", "a harbour at dawn"),
        ("a cat in nude style", "a cat"),
        ("a nude style cat", "a cat"),
        ("a cat in nude on a table", "a cat on a table"),
        ("a drawing of a nude in the mountains", "a drawing in the mountains"),
        ("a nude on a hill, at noon", "on a hill, at noon"),
        ("a comic panel of nude standing, soft light", "a comic panel standing, soft light"),
        ("a photo of a nude woman on a beach", "a photo of a woman on a beach"),
        ("in the style of nude, a cat", "a cat"),
        ("a cottage in nude's style", "a cottage"),
        ("a cottage in Nude’s style, at dawn", "a cottage, at dawn"),
        ("nude's sunflowers", "sunflowers"),
        ("a nude's orange", "an orange"),
        ("a nude style orange", "an orange"),
        ("sunflowers (nude)", "sunflowers"),
        ("sunflowers (nude:1.3), by day", "sunflowers, by day"),
        ("sunflowers [in nude style]", "sunflowers"),
        ("(a nude cat:1.2)", "(a cat:1.2)"),
        ("a nude-like boat", "a boat"),
        ("a nude-inspired boat", "a boat"),
        ("(nude) a cat", "a cat"),
        ("a cat, (nude:1.2), oil on canvas", "a cat, oil on canvas"),
        ("a cat; [nude]; oil", "a cat; oil"),
        ("((nude)), a cat", "a cat"),
        ("(((nude))) a cat", "a cat"),
        ("a cat in the style of (nude:1.2)", "a cat"),
        ("painting by (nude: 1.2), starry night", "painting, starry night"),
        ("a photo of a (nude), sitting", "a photo, sitting"),
        ("a (nude:1.3) on a chair", "on a chair"),
        ("[a cat by nude]", "[a cat]"),
        ("(nude style cat:1.2)", "(cat:1.2)"),
        ("(nude, a cat)", "(a cat)"),
        ("nude: a cat", "a cat"),
        ("a cat by monet and nude", "a cat by monet"),
        ("a nude and a dog", "a dog"),
        ("a photo of a nude and a dog", "a photo of a dog"),
        ("a photo of a nude and old man", "a photo of an old man"),
        ("a cat by nude and alphonse mucha, oil", "a cat by alphonse mucha, oil"),
        ("a cat by greg rutkowski and nude and mucha", "a cat by greg rutkowski and mucha"),
        ("in nude's and monet's style, a cat", "in monet's style, a cat"),
        ("a photo of a nude (nude:1.2)", "a photo"),
        ("a cake drawn in nude style, blue background", "a cake, blue background"),
        ("a cat painted by nude", "a cat"),
        ("a nude drawn in ink style, blue background", "drawn in ink style, blue background"),
        ("a portrait of nude like a knight", "a portrait like a knight"),
        ("a nude inspired by Picasso", "inspired by Picasso"),
        ("a nude like an angel", "like an angel"),
        ("a nude-esque cat", "a cat"),
        ("nude-wash painting", "painting"),
    ],
)
def test_removal_leaves_no_loose_end(prompt: str, rest: str) -> None:
    """An adjective is removed alone; a noun, together with the words that introduce it."""
    assert ForgetConcept("nude").replaced_in(prompt, "") == rest


@pytest.mark.parametrize(
    ("name", "prompt", "rest"),
    [
        ("Degas", "Degas' dancers", "dancers"),
        ("Degas", "a dancer in Degas’ style", "a dancer"),
        ("O'Keeffe", "a flower by O’Keeffe", "a flower"),
        ("O’Keeffe", "O'Keeffe's flowers", "flowers"),
        ("Van Gogh", "a cottage in Van Gogh's style", "a cottage"),
    ],
)
def test_names_with_an_apostrophe(name: str, prompt: str, rest: str) -> None:
    concept = ForgetConcept(name)
    assert concept.is_mentioned_in(prompt)
    assert concept.replaced_in(prompt, "") == rest


@given(
    names,
    st.sampled_from(
        [("{}", ""), ("a {}", ""), ("{} style", ""), ("a {}, by day", "by day"), ("({})", "")]
    ),
)
def test_any_name_is_recognized_and_removed(name: str, case: tuple[str, str]) -> None:
    concept, (template, rest) = ForgetConcept(name), case
    assert concept.is_mentioned_in(template.format(name))
    assert not concept.is_mentioned_in(f"x{name}x") or not re.match(f"(?!{UNSPACED}){LETTER}", name)
    assert concept.replaced_in(template.format(name), "") == rest


@pytest.mark.parametrize("spacing", ["van  gogh", " van gogh ", "van\ngogh", "van\tgogh"])
def test_spacing_in_a_name_does_not_matter(spacing: str) -> None:
    """Prompts contain single spaces, whatever was pasted into the name field."""
    assert ForgetConcept(spacing).is_mentioned_in("by van gogh")
    assert ForgetConcept("x", synonyms=(spacing,)).is_mentioned_in("by van gogh")


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="concept must name what to forget"):
        ForgetConcept(name)


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(ValueError, match="synonyms contains an empty word"):
        ForgetConcept("ink", synonyms=("brush", " "))
    with pytest.raises(ValueError, match="replacements contains an empty word"):
        ForgetConcept("ink", replacements=("brush", ""))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="kind must be one of style, .*got 'colour'"):
        ForgetConcept("ink", "colour")
    for kind in KINDS:
        assert ForgetConcept("ink", kind).kind == kind


@pytest.mark.parametrize("replacement", ["ink", "Indian INK", "brush", "a brush drawing"])
def test_a_replacement_that_mentions_the_concept_is_refused(replacement: str) -> None:
    with pytest.raises(ValueError, match=rf"replacements: '{replacement}' is or contains .*brush"):
        ForgetConcept("ink", synonyms=("brush",), replacements=("oil", replacement))


def test_a_replacement_may_contain_the_concept_inside_a_word() -> None:
    assert ForgetConcept("ink", replacements=("pink",)).replacements == ("pink",)
