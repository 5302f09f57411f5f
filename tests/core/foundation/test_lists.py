"""Lists as people type them on any keyboard."""

from __future__ import annotations

import pytest

from unlearn_core.foundation.lists import split_list


@pytest.mark.parametrize(
    "text",
    [
        "noto, twemoji, fluent",
        "noto，twemoji，fluent",
        "noto、twemoji、fluent",
        "noto، twemoji، fluent",
        "noto; twemoji;fluent",
        "noto；twemoji؛fluent",
        "noto﹑twemoji﹔fluent",
        "noto︐twemoji︑fluent",
        "noto\ntwemoji\r\nfluent",
        "noto\ttwemoji\tfluent",
        " ,noto,, twemoji ,\u3000fluent，noto",
    ],
)
def test_every_separator_splits(text: str) -> None:
    assert split_list(text) == ("noto", "twemoji", "fluent")


@pytest.mark.parametrize("text", ["", " ", "，", " , ;\n"])
def test_separators_alone_are_an_empty_list(text: str) -> None:
    assert split_list(text) == ()


def test_other_punctuation_is_part_of_a_word() -> None:
    assert split_list("M.C. Escher, Toulouse-Lautrec, AC/DC") == (
        "M.C. Escher",
        "Toulouse-Lautrec",
        "AC/DC",
    )
