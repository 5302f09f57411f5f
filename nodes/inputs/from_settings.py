"""The inputs of a node, read off the fields of a settings class."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...unlearn_core.foundation.fields import Choice, Flag, Number, Setting, Whole, settings_of
from . import sockets


def inputs_from(owner: type, *, advanced: bool, optional: bool = False) -> list[io.Input]:
    """Inputs of all usual, or of all advanced, fields that an input can show, in their order.

    Args:
        optional: whether a prompt may leave them out.
    """
    return [
        input_of(setting, optional=optional)
        for setting in settings_of(owner).values()
        if setting.advanced == advanced and isinstance(setting.kind, (Whole, Number, Choice, Flag))
    ]


def input_from(
    owner: type,
    name: str,
    *,
    called: str | None = None,
    default: Any = None,
    optional: bool = False,
) -> io.Input:
    """The input of one field.

    Args:
        called: the input's name, where it is not the field's.
        default: a default of the node's own.
        optional: whether a prompt may leave it out.
    """
    return input_of(settings_of(owner)[name], called, default, optional=optional)


def input_of(
    setting: Setting,
    called: str | None = None,
    default: Any = None,
    *,
    optional: bool = False,
) -> io.Input:
    name, kind = called or setting.name, setting.kind
    value = setting.default if default is None else default
    shared: dict[str, Any] = {
        "default": value,
        "tooltip": f"{setting.help} Default: {shown(value)}.",
        "optional": optional,
    }
    match kind:
        case Whole():
            made = io.Int.Input(
                name,
                min=kind.least,
                max=kind.offered,
                **shared,
                control_after_generate=False,  # or a seed would change by itself after each run
            )
        case Number():
            offered = kind.offered
            rounded: dict[str, Any] = {"round": offered.precision} if offered.precision else {}
            made = io.Float.Input(
                name,
                min=offered.least,
                max=offered.most,
                step=offered.step,
                **shared,
                **rounded,
            )
        case Choice():
            made = io.Combo.Input(name, options=list(kind.options), **shared)
        case Flag():
            made = io.Boolean.Input(name, **shared)
        case _:
            raise TypeError(f"{name}: no input shows {kind.rule}")
    return sockets.advanced(made) if setting.advanced else made


def shown(value: object) -> str:
    """A value as the page shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
