"""ComfyUI's syntax of prompts, for the models that this package encodes itself.

``(word)`` weighs a word by 1.1, ``(word:1.3)`` by 1.3, nested brackets multiply, and ``\\(`` is a
bracket. Everything else is text, in ComfyUI too: ``[word]``, ``BREAK``, ``<lora:name:1>``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from .errors import UnsupportedError

BRACKET_WEIGHT = 1.1
DEEPEST = 100  # nested brackets
ESCAPES = (("\\)", "\0\1"), ("\\(", "\0\2"))
EMBEDDING = re.compile(r"(?:^|(?<=[\s()]))embedding:([^\s():]+)")
HALVES = re.compile("[\ud800-\udfff]")  # surrogates, which no encoding can store
SYNTAX_VERSION = "syntax 1"
"""Part of the keys of pictures whose prompt ``is_plain`` does not describe."""
PLAIN_LENGTH = 75  # bytes: text of this length has at most as many tokens


def is_plain(prompt: str) -> bool:
    """Whether a prompt has no syntax and certainly fits in one chunk of tokens. The encoding of
    other prompts has changed after version 0.3, so their pictures have other keys since."""
    return len(prompt.encode()) <= PLAIN_LENGTH and not set("()\\") & set(prompt)


def embeddings(prompt: str) -> list[str]:
    """The names after "embedding:" in a prompt."""
    return EMBEDDING.findall(prompt)


def closed(start: str) -> str:
    """The beginning of a prompt, with the brackets closed that are open at its end."""
    text = start
    for escape, mark in ESCAPES:
        text = text.replace(escape, mark)
    return start + ")" * max(0, text.count("(") - text.count(")"))


def weighted_parts(prompt: str) -> list[tuple[str, float]]:
    """The parts of a prompt and their weights, divided as ComfyUI divides them.

    Raises:
        UnsupportedError: a weight that is not a finite number, too many nested brackets, or an
            embedding, whose file only ComfyUI can find.
    """
    if names := embeddings(prompt):
        raise UnsupportedError(
            f"prompts: 'embedding:{names[0]}' needs a file of ComfyUI, got {prompt!r:.80}; remove "
            "it, or open the model with From ComfyUI"
        )
    if HALVES.search(prompt):
        raise UnsupportedError(
            f"prompts: {prompt!a:.80} contains half of a character; write it again"
        )
    text = prompt
    for escape, mark in ESCAPES:
        text = text.replace(escape, mark)
    parts = []
    for part, weight in _weighted(text, 1.0, 0):
        if not math.isfinite(weight):
            raise UnsupportedError(
                f"prompts: a weight must be a finite number, got {weight} in {prompt!r:.80}"
            )
        for escape, mark in ESCAPES:
            part = part.replace(mark, escape[1])
        if part:
            parts.append((part, weight))
    return parts


def _weighted(text: str, weight: float, depth: int) -> Iterator[tuple[str, float]]:
    if depth > DEEPEST:
        raise UnsupportedError(f"prompts: a prompt has at most {DEEPEST} brackets inside brackets")
    for part in _outer_groups(text):
        if len(part) > 1 and part[0] == "(" and part[-1] == ")":
            yield from _weighted(*_own_weight(part[1:-1], weight * BRACKET_WEIGHT), depth + 1)
        else:
            yield part, weight


def _own_weight(text: str, weight: float) -> tuple[str, float]:
    """The text without the number after its last colon, and this number; else ``weight``."""
    colon = text.rfind(":")
    if colon > 0:
        try:
            return text[:colon], float(text[colon + 1 :])
        except ValueError:
            pass
    return text, weight


def _outer_groups(text: str) -> list[str]:
    """The outermost bracketed groups and the texts between them. A bracket without a partner is
    text."""
    groups, start, depth = [], 0, 0
    for i, char in enumerate(text):
        if char == "(":
            if depth == 0:
                groups.append(text[start:i])
                start = i
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                groups.append(text[start : i + 1])
                start = i + 1
    return [group for group in (*groups, text[start:]) if group]
