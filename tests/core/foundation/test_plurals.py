"""Numbers of things, in messages."""

from __future__ import annotations

from unlearn_core.foundation.plurals import count_of


def test_the_noun_follows_the_number() -> None:
    texts = [count_of(count, "picture") for count in (0, 1, 2, 1000)]
    assert texts == ["0 pictures", "1 picture", "2 pictures", "1000 pictures"]
