"""English grammar for prompts: articles, and the words around a concept."""

from __future__ import annotations

import re
from collections.abc import Iterable

CREATED = "drawn|painted|sketched|rendered|made"
LEADS = rf"(?:(?:{CREATED})\s+)?(?:in the style of|in the manner of|in|by|of|with|as|like|and)"
"""Words that introduce a noun ("in the style of", "by")."""
ARTICLE = r"(?:an?|the|one)\s+"


FOLLOWERS = rf"in|on|at|by|near|under|with|of|from|and|as|like|inspired by|{CREATED}|wearing|\w+ing"
"""Words that follow a noun: before one of them, the concept is a noun and not an adjective."""
SUFFIX = r"(?:['’]s(?!\w)|(?<=s)['’](?!\w))?(?:[\s_]+style(?!\w)|[-_]\w+)?"
"""Endings of a name: "Van Gogh's style", "Degas' dancers", "ink-wash", "ink_wash"."""
WEIGHT = r"(?::\s*[\d.]+\s*)?"
"""The weight in ComfyUI's brackets: "(ink:1.2)"."""
FILES = (r"<\w+:[^<>]*?", r"[^<>]*>", r"\bembedding:", r"\S*")
"""What surrounds a name in the names of files: "<lora:ink:1>", "embedding:ink-v2"."""
LOOSE_ENDS = (
    (r"^\s*and\s+", ""),
    (r"(?<![^\s,;(\[])_+|_+(?=[\s,;)\]]|$)", ""),
    (rf"\\?[(\[][\s,;]*{WEIGHT}\\?[)\]]", ""),
    (r"(?<=[(\[])[\s,;]+", ""),
    (r"[,;]\s*(?=[,;])", ""),
    (r"\s+(?=[\s,.;:)\]]|$)", ""),
)
"""Patterns and their replacements: a leading *and*, the rest of a tag with underscores, empty
brackets, doubled commas and spaces."""
VOWEL = re.compile(
    r"(?!uni[^nm]|us[eu]|uk|ut[eio]|ufo|eu|one\b|un[aeo]?\b)[aeiou]|hour|hones|hono|heir", re.I
)
"""Beginnings of words that take *an*, by sound. *un* and *una* are excluded: they are articles of
languages in which *a* is not an article."""


def with_articles(text: str, words: Iterable[str]) -> str:
    """Correct the article before each of ``words``, which were filled into a template: ``a apple``
    becomes ``an apple``. Other articles stay unchanged, since *a* is not an article in every
    language."""
    pattern = "|".join(re.escape(word) for word in words if word)
    if not pattern:
        return text

    def corrected(match: re.Match[str]) -> str:
        return f"{'an' if VOWEL.match(match[3]) else 'a'}{match[2]}{match[3]}"

    return re.sub(rf"(?<![\w'])(an?)(\s+)((?:{pattern})(?!\w))", corrected, text)
