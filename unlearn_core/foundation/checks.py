"""Checks of settings; each error names the field, its value and the rule."""

from __future__ import annotations

from collections.abc import Collection


def require_words(field: str, value: object) -> None:
    """Require a list of strings. A single string is refused too: Python would read it as a list of
    its letters.

    Raises:
        ValueError: names the field.
    """
    if not isinstance(value, (tuple, list)) or not all(isinstance(word, str) for word in value):
        example = '["cat", "dog"]'
        raise ValueError(f"{field} must be a list of texts such as {example}, got {value!r:.80}")


LARGEST_SEED = 2**63  # torch accepts seeds below 2**64; picture i uses the seed plus i
LARGEST_WHOLE = 2**31


def require(condition: bool, field: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{field} must be {rule}, got {value!r}")


def check_whole(field: str, value: object, least: int, most: int = LARGEST_WHOLE) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{field} must be a whole number, got {value!r}")
    require(value >= least, field, value, f"{least} or more")
    require(value <= most, field, value, f"{most} or less")


def check_number(field: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{field} must be a number, got {value!r}")
    return value


def check_choice(field: str, value: object, known: Collection[str]) -> None:
    rule = f"one of {', '.join(map(repr, known))}"  # quoted: a name may hold a comma
    require(isinstance(value, str) and value in known, field, value, rule)
