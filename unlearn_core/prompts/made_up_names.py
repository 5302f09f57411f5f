"""Made-up names as replacements of a concept (appendix of Ko et al. 2024)."""

from __future__ import annotations

import random
from collections.abc import Callable

_ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ia", "ou")
_CODAS = ("", "l", "n", "r", "s", "th", "x", "nd", "rk")
_FIRST = ("Elen", "Tomas", "Mirel", "Joran", "Adela", "Bruno", "Katja", "Silvan", "Noemi", "Piet")
LARGEST = 10_000  # names of a kind; about 98,000 artists and 1,500,000 words are possible
_LAST = ("berg", "ov", "son", "elli", "quist", "aert", "mann", "ez")


def gibberish(count: int, seed: int) -> tuple[str, ...]:
    """Different words that sound like names and mean nothing, such as ``"zorvath"``."""
    return _distinct(count, seed, lambda rng: "".join(_syllable(rng) for _ in range(2)))


def made_up_names(count: int, seed: int) -> tuple[str, ...]:
    """Different names of invented artists, such as ``"Elen Varquist"``."""

    def name(rng: random.Random) -> str:
        return f"{rng.choice(_FIRST)} {_syllable(rng).capitalize()}{rng.choice(_LAST)}"

    return _distinct(count, seed, name)


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)


def _distinct(count: int, seed: int, name: Callable[[random.Random], str]) -> tuple[str, ...]:
    rng, names = random.Random(seed), dict[str, None]()
    while len(names) < count:
        names[name(rng)] = None
    return tuple(names)
