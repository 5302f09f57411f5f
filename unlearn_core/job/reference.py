"""Every field of a settings file with its default, its rule and what it does, for ``--help``."""

from __future__ import annotations

import json
import textwrap

from ..foundation.fields import Setting, settings_of
from .settings_file import SECTIONS

INDENT = " " * 4


def reference() -> str:
    return "\n\n".join(
        "\n".join([f"{name}:", *map(_entry, settings_of(owner).values())])
        for name, owner in SECTIONS.items()
        if settings_of(owner)
    )


def _entry(setting: Setting) -> str:
    default = json.dumps(setting.default)
    head = f"  {setting.name} (default {default}): {setting.kind.rule}"
    return "\n".join(
        [
            *textwrap.wrap(head, subsequent_indent=INDENT),
            *textwrap.wrap(setting.help, initial_indent=INDENT, subsequent_indent=INDENT),
        ]
    )
