"""Text for ``--help``: every field of a settings file with its default, rule and description."""

from __future__ import annotations

import dataclasses
import json
import textwrap

from ..foundation.fields import REQUIRED, Setting, settings_of
from ..unlearning.recipes import RecipeChoice
from .settings_file import SECTIONS

INDENT = " " * 4


def reference() -> str:
    return "\n\n".join(
        "\n".join([f"{name}:", *map(_entry, _settings(name, owner))])
        for name, owner in SECTIONS.items()
    )


def _settings(section: str, owner: type) -> list[Setting]:
    recipe = settings_of(RecipeChoice).values() if section == "unlearn" else ()
    return [*recipe, *settings_of(owner).values()]


def _entry(setting: Setting) -> str:
    head = f"  {setting.name} ({_default(setting.default)}): {setting.kind.rule}"
    return "\n".join(
        [
            *textwrap.wrap(head, subsequent_indent=INDENT),
            *textwrap.wrap(setting.help, initial_indent=INDENT, subsequent_indent=INDENT),
        ]
    )


def _default(value: object) -> str:
    if value is REQUIRED:
        return "required"
    if dataclasses.is_dataclass(value):
        return "absent by default"
    return f"default {json.dumps(value)}"
