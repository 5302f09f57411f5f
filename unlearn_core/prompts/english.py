"""The little English that prompts need: articles, and the words around a concept."""

from __future__ import annotations

import re
from collections.abc import Iterable

MADE = "drawn|painted|sketched|rendered|made"
LEADS = rf"(?:(?:{MADE})\s+)?(?:in the style of|in the manner of|in|by|of|with|as|like|and)"
"""What stands before a noun for its sake."""
ARTICLE = r"(?:an?|the|one)\s+"


GO_ON = rf"in|on|at|by|near|under|with|of|from|and|as|like|inspired by|{MADE}|wearing|\w+ing"
"""What may follow a noun, and shows that the concept was none of its adjectives."""
BELONGS = r"(?:['’]s(?!\w)|(?<=s)['’](?!\w))?(?:\s+style(?!\w)|-\w+)?"
"""What a name carries along: "Van Gogh's style", "Degas' dancers", "ink-wash", "cat-like"."""
WEIGHT = r"(?::\s*[\d.]+\s*)?"
"""That ComfyUI reads in brackets: "(ink:1.2)"."""
LOOSE_ENDS = (
    (r"^\s*and\s+", ""),
    (rf"[(\[][\s,;]*{WEIGHT}[)\]]", ""),
    (r"(?<=[(\[])[\s,;]+", ""),
    (r"[,;]\s*(?=[,;])", ""),
    (r"\s+(?=[\s,.;:)\]]|$)", ""),
)
"""An *and* with nothing before it, brackets with nothing in them, commas and spaces with nothing
between."""
VOWEL = re.compile(
    r"(?!uni[^nm]|us[eu]|uk|ut[eio]|ufo|eu|one\b|un[aeo]?\b)[aeiou]|hour|hones|hono|heir", re.I
)
"""How words begin that have *an*, by ear; *un* and *una* are articles of other languages, in which
*a* is none."""


def with_articles(text: str, words: Iterable[str]) -> str:
    """``a apple`` -> ``an apple`` where the article stands before one of the words, which have been
    filled in there. All others are left to whoever wrote them: *a* is no article everywhere.
    """
    listed = "|".join(re.escape(word) for word in words if word)
    if not listed:
        return text

    def fitting(match: re.Match[str]) -> str:
        return f"{'an' if VOWEL.match(match[3]) else 'a'}{match[2]}{match[3]}"

    return re.sub(rf"(?<![\w'])(an?)(\s+)((?:{listed})(?!\w))", fitting, text)


def stands_in(words: str, prompt: str) -> bool:
    """Whether a prompt holds these words, as whole words, in any case."""
    return re.search(rf"(?<!\w){spaced_pattern(words)}(?!\w)", prompt, re.IGNORECASE) is not None


def spaced_pattern(words: str) -> str:
    """A pattern of the words, however far apart, with either apostrophe."""
    spaced = r"\s+".join(map(re.escape, words.split()))
    return re.sub("['’]", "['’]", spaced)
