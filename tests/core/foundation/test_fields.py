"""Settings fields: their checks, and the rules in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unlearn_core.foundation.fields import (
    Range,
    check_fields,
    choice,
    flag,
    number,
    other,
    settings_of,
    whole,
)


def _check_path(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Path):
        raise ValueError(f"{name} must be a path, got {value!r}")


@dataclass(frozen=True)
class Settings:
    count: int = whole(3, least=1, most=9, help="How many.")
    share: float = number(0.5, above=0, below=1, offered=Range(0.1, 0.9, 0.1), help="How much.")
    weight: float = number(1.0, least=0, offered=Range(0.0, 9.0, 1.0), help="Weight.")
    rate: float = number(0.1, above=0, most=1, offered=Range(0.1, 1.0, 0.1), help="Rate.")
    kind: str = choice("a", ("a", "b, c"), help="Which.", advanced=True)
    fast: bool = flag(False, help="Whether to hurry.")
    folder: Path | None = field(default=None, metadata=other("a path", _check_path, help="Where."))
    plain: int = 0  # an ordinary field, not a setting

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("count", 0, "1 or more"),
        ("count", 10, "9 or less"),
        ("count", True, "a whole number"),
        ("share", 0, "positive"),
        ("share", 1, "below 1"),
        ("share", "1", "a number"),
        ("weight", -1, "0 or more"),
        ("weight", float("nan"), "0 or more"),
        ("weight", float("inf"), "0 or more"),
        ("rate", 1.5, "1 or less"),
        ("kind", "c", "one of 'a', 'b, c'"),
        ("fast", 1, "true or false"),
        ("folder", 5, "a path"),
    ],
)
def test_a_bad_value_is_refused_with_field_and_rule(name: str, value: object, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be {rule}, got {value!r}$"):
        Settings(**{name: value})  # pyright: ignore[reportArgumentType]


def test_inclusive_bounds_are_allowed() -> None:
    Settings(count=1, weight=0, rate=1)
    Settings(count=9)


def test_settings_are_listed_with_default_help_and_rule() -> None:
    listed = settings_of(Settings)
    assert list(listed) == ["count", "share", "weight", "rate", "kind", "fast", "folder"]
    assert [setting.name for setting in listed.values() if setting.advanced] == ["kind"]
    assert listed["count"].default == 3
    assert listed["count"].help == "How many."
    assert {name: setting.kind.rule for name, setting in listed.items()} == {
        "count": "a whole number from 1 to 9",
        "share": "positive, below 1",
        "weight": "0 or more",
        "rate": "positive, 1 or less",
        "kind": "one of 'a', 'b, c'",
        "fast": "true or false",
        "folder": "a path",
    }
