"""Node inputs generated from the fields of a settings class."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...unlearn_core.foundation.fields import Choice, Flag, Number, Setting, Whole, settings_of
from . import sockets


def inputs_from(owner: type, *, advanced: bool, optional: bool = False) -> list[io.Input]:
    """Inputs for all common, or all advanced, fields that a widget can show, in field order.

    Args:
        optional: whether a prompt may omit them.
    """
    return [
        input_of(setting, optional=optional)
        for setting in settings_of(owner).values()
        if setting.advanced == advanced and isinstance(setting.kind, (Whole, Number, Choice, Flag))
    ]


def input_from(
    owner: type,
    field: str,
    *,
    name: str | None = None,
    default: Any = None,
    optional: bool = False,
) -> io.Input:
    """The input for one field.

    Args:
        name: name of the input, if it differs from the field's.
        default: the node's own default, if it differs from the field's.
        optional: whether a prompt may omit it.
    """
    return input_of(settings_of(owner)[field], name, default, optional=optional)


def input_of(
    setting: Setting,
    name: str | None = None,
    default: Any = None,
    *,
    optional: bool = False,
) -> io.Input:
    name, kind = name or setting.name, setting.kind
    value = setting.default if default is None else default
    common: dict[str, Any] = {
        "default": value,
        "tooltip": f"{setting.help} Default: {format_value(value)}.",
        "optional": optional,
    }
    match kind:
        case Whole():
            node_input = io.Int.Input(
                name,
                min=kind.least,
                max=kind.offered,
                **common,
                control_after_generate=False,  # otherwise a seed would change after each run
            )
        case Number():
            limits = kind.offered
            rounding: dict[str, Any] = {"round": limits.precision} if limits.precision else {}
            node_input = io.Float.Input(
                name,
                min=limits.least,
                max=limits.most,
                step=limits.step,
                **common,
                **rounding,
            )
        case Choice():
            node_input = io.Combo.Input(name, options=list(kind.options), **common)
        case Flag():
            node_input = io.Boolean.Input(name, **common)
        case _:
            raise TypeError(f"{name}: no widget can show {kind.rule}")
    return sockets.advanced(node_input) if setting.advanced else node_input


def format_value(value: object) -> str:
    """Format a value the way the page shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
