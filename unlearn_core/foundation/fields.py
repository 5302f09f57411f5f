"""Settings fields with limits, a help text and an "advanced" flag.

    steps: int = whole(100, least=1, most=100_000, help="Optimizer steps.")

``check_fields`` checks an instance against its fields. ``settings_of`` lists the fields; node
inputs, ``--help`` and the reference part of a help page are built from that list.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from .checks import LARGEST_WHOLE, check_choice, check_number, check_whole, require

KEY = "setting"  # in a field's metadata
REQUIRED = dataclasses.MISSING


class Kind(Protocol):
    """The type of a setting, with its limits."""

    def check(self, field: str, value: object) -> None:
        """Check a value.

        Raises:
            ValueError: names the field, its value and the violated rule.
        """
        ...

    @property
    def rule(self) -> str:
        """The requirement in words, to follow "must be"."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
        offered: the largest value that a form offers; may be less than ``most``.
    """

    least: int
    most: int
    offered: int

    def check(self, field: str, value: object) -> None:
        check_whole(field, value, self.least, self.most)

    @property
    def rule(self) -> str:
        if self.most >= LARGEST_WHOLE:
            return f"a whole number, {self.least} or more"
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True)
class Range:
    """The numbers that a form offers: a finite range, even where the allowed one has no bound."""

    least: float
    most: float
    step: float
    precision: float | None = None  # to which the form rounds; None for the form's default


@dataclass(frozen=True)
class Number:
    """A finite number within bounds.

    Attributes:
        least, most: the bounds.
        above, below: whether the lower or upper bound itself is excluded.
        offered: the range that a form offers.
    """

    least: float
    most: float
    above: bool
    below: bool
    offered: Range

    def check(self, field: str, value: object) -> None:
        number = check_number(field, value)
        large_enough = number > self.least if self.above else number >= self.least
        require(large_enough and number < math.inf, field, value, self._lower)
        require(
            number < self.most if self.below else number <= self.most, field, value, self._upper
        )

    @property
    def rule(self) -> str:
        return self._lower if self.most >= LARGEST_WHOLE else f"{self._lower}, {self._upper}"

    @property
    def _lower(self) -> str:
        if self.least == -math.inf:
            return "a number"
        if self.above:
            return "positive" if self.least == 0 else f"above {self.least:g}"
        return f"{self.least:g} or more"

    @property
    def _upper(self) -> str:
        return f"below {self.most:g}" if self.below else f"{self.most:g} or less"


@dataclass(frozen=True)
class Choice:
    """One of several names.

    Attributes:
        options: the names that a form offers.
        also: further names that are accepted: those of earlier versions, or for experts only.
    """

    options: tuple[str, ...]
    also: tuple[str, ...] = ()

    def check(self, field: str, value: object) -> None:
        if not (isinstance(value, str) and value in self.also):
            check_choice(field, value, self.options)

    @property
    def rule(self) -> str:
        return f"one of {', '.join(map(repr, self.options))}"


@dataclass(frozen=True)
class Flag:
    """A boolean."""

    rule: str = "true or false"

    def check(self, field: str, value: object) -> None:
        require(isinstance(value, bool), field, value, self.rule)


@dataclass(frozen=True)
class Other:
    """Any other type: a path, a list of words, settings of another class.

    Attributes:
        validate: its check; None if the settings class itself checks the field.
    """

    rule: str
    validate: Callable[[str, object], None] | None

    def check(self, field: str, value: object) -> None:
        if self.validate is not None:
            self.validate(field, value)


@dataclass(frozen=True)
class Setting:
    """One field of a settings class.

    Attributes:
        default: the default value; ``REQUIRED`` if there is none.
        help: what the setting does and when to change it, for a user of the pack.
        advanced: whether it is rarely needed; forms hide it by default.
    """

    name: str
    default: Any
    kind: Kind
    help: str
    advanced: bool


# Each of these functions creates a dataclass field. They return Any, so that type checkers accept
# the result as the field's default.


def whole(
    default: int,
    *,
    least: int,
    most: int = LARGEST_WHOLE,
    offered: int | None = None,
    help: str,
    advanced: bool = False,
) -> Any:
    kind = Whole(least, most, most if offered is None else offered)
    return _field(kind, help, advanced, default)


def number(
    default: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    offered: Range,
    help: str,
    advanced: bool = False,
) -> Any:
    """A number field; ``least`` and ``most`` are inclusive bounds, ``above`` and ``below``
    exclusive ones. Without an upper bound, ``LARGEST_WHOLE`` is one."""
    lower = -math.inf if least is None else least
    upper = LARGEST_WHOLE if most is None else most
    kind = Number(
        lower if above is None else above,
        upper if below is None else below,
        above is not None,
        below is not None,
        offered,
    )
    return _field(kind, help, advanced, default)


def choice(
    default: str,
    options: Collection[str],
    *,
    also: Collection[str] = (),
    help: str,
    advanced: bool = False,
) -> Any:
    offered = tuple(name for name in options if name not in also)
    return _field(Choice(offered, tuple(also)), help, advanced, default)


def flag(default: bool, *, help: str, advanced: bool = False) -> Any:
    return _field(Flag(), help, advanced, default)


def other(
    rule: str,
    validate: Callable[[str, object], None] | None = None,
    *,
    help: str,
    advanced: bool = False,
) -> dict[str, Any]:
    """Metadata for a ``dataclasses.field`` of any other type."""
    return {KEY: (Other(rule, validate), help, advanced)}


def _field(kind: Kind, help: str, advanced: bool, default: object) -> Any:
    return dataclasses.field(default=default, metadata={KEY: (kind, help, advanced)})


def settings_of(owner: type) -> dict[str, Setting]:
    """The fields of a settings class by name, in order of definition."""
    return {
        field.name: Setting(field.name, _default(field), *field.metadata[KEY])
        for field in dataclasses.fields(owner)
        if KEY in field.metadata
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def check_fields(settings: Any) -> None:
    """Check every field of an instance.

    Raises:
        ValueError: names the field, its value and the rule.
    """
    for name, setting in settings_of(type(settings)).items():
        setting.kind.check(name, getattr(settings, name))
