"""Check of a node's widget values. ComfyUI converts values in a prompt, but not those that another
node sends over a link, and it lets custom nodes send any type."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from comfy_api.latest import io

from ...unlearn_core.foundation.checks import check_number, check_whole, require

P = ParamSpec("P")
R = TypeVar("R")
LARGEST_INTEGER = 2**64  # of ComfyUI's seeds; the settings have narrower limits


def checked(execute: Callable[P, R]) -> Callable[P, R]:
    """Make a node's ``execute`` refuse values of another type than that of their input."""

    @functools.wraps(execute)
    def with_check(*arguments: P.args, **values: P.kwargs) -> R:
        node: Any = arguments[0]
        check_values(node.define_schema().inputs, values)
        return execute(*arguments, **values)

    return with_check


def check_values(inputs: Iterable[io.Input], values: dict[str, Any]) -> None:
    """Raises:
    ValueError: names the input and its value.
    """
    for inp in inputs:
        value = values.get(inp.id)
        if value is None and (inp.optional or inp.id not in values):
            continue
        match inp:
            case io.Int.Input():
                check_whole(inp.id, value, -LARGEST_INTEGER, LARGEST_INTEGER)
            case io.Float.Input():
                check_number(inp.id, value)
            case io.String.Input() | io.Combo.Input():
                require(isinstance(value, str), inp.id, value, "a text")
            case io.Boolean.Input():
                require(isinstance(value, bool), inp.id, value, "true or false")
            case _:
                pass  # a link, see ``require_link``
