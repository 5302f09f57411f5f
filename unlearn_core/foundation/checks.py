"""Checks of settings; each error names the field, its value and the rule."""

from __future__ import annotations

from collections.abc import Collection

MOST_WORDS = 100_000  # in a list
LONGEST_TEXT = 10_000  # characters of a prompt or a template
LONGEST_WORD = 1000  # characters of a name or a value


def require_words(field: str, value: object, longest: int = LONGEST_TEXT) -> None:
    """Require a list of strings. A single string is refused too: Python would read it as a list of
    its letters.

    Args:
        longest: limit of each string in characters.

    Raises:
        ValueError: names the field.
    """
    if not isinstance(value, (tuple, list)) or not all(isinstance(word, str) for word in value):
        example = '["cat", "dog"]'
        raise ValueError(f"{field} must be a list of texts such as {example}, got {value!r:.80}")
    if len(value) > MOST_WORDS:
        raise ValueError(f"{field} must have {MOST_WORDS} texts or fewer, got {len(value)}")
    for word in value:
        require_length(field, word, longest)


def require_length(field: str, value: str, longest: int = LONGEST_WORD) -> None:
    if len(value) > longest:
        raise ValueError(
            f"{field}: a text must have {longest} characters or fewer, got {len(value)} "
            f"({value[:40]!r}…); shorten it"
        )


LARGEST_SEED = 2**63  # torch accepts seeds below 2**64; picture i uses the seed plus i
LARGEST_WHOLE = 1_000_000  # of counts, and of numbers without a limit of their own


def require(condition: bool, field: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{field} must be {rule}, got {value!r:.200}")


def check_whole(field: str, value: object, least: int, most: int = LARGEST_WHOLE) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{field} must be a whole number, got {value!r:.200}")
    require(value >= least, field, value, f"{least} or more")
    require(value <= most, field, value, f"{most} or less")


def check_number(field: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{field} must be a number, got {value!r:.200}")
    return value


def check_choice(field: str, value: object, known: Collection[str]) -> None:
    rule = f"one of {', '.join(map(repr, known))}"  # quoted: a name may hold a comma
    require(isinstance(value, str) and value in known, field, value, rule)
