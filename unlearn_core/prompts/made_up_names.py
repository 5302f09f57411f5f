"""Names that nobody has, to stand where a concept stood (appendix of Ko et al. 2024)."""

from __future__ import annotations

import random
from collections.abc import Callable

_ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ia", "ou")
_CODAS = ("", "l", "n", "r", "s", "th", "x", "nd", "rk")
_FIRST = ("Elen", "Tomas", "Mirel", "Joran", "Adela", "Bruno", "Katja", "Silvan", "Noemi", "Piet")
LARGEST = 10_000  # names of a kind; some 98,000 artists and 1,500,000 words could be made up
_LAST = ("berg", "ov", "son", "elli", "quist", "aert", "mann", "ez")


def gibberish(count: int, seed: int) -> tuple[str, ...]:
    """Words that sound like names and mean nothing, ``"zorvath"``, all different."""
    return _different(count, seed, lambda rng: "".join(_syllable(rng) for _ in range(2)))


def made_up_names(count: int, seed: int) -> tuple[str, ...]:
    """Names of artists who never lived, ``"Elen Varquist"``, all different."""

    def name(rng: random.Random) -> str:
        return f"{rng.choice(_FIRST)} {_syllable(rng).capitalize()}{rng.choice(_LAST)}"

    return _different(count, seed, name)


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)


def _different(count: int, seed: int, make: Callable[[random.Random], str]) -> tuple[str, ...]:
    rng, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found[make(rng)] = None
    return tuple(found)
