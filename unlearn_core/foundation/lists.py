"""Lists that people type into one line of text."""

from __future__ import annotations

import re

SEPARATORS = ",，﹐︐､、﹑︑،፣;；﹔؛"
"""The commas and semicolons of all keyboards: full-width, small and vertical East Asian, Arabic,
Ethiopic."""
COLONS = ":："
"""The colons of all keyboards."""
_BETWEEN = re.compile(rf"[{SEPARATORS}\n\r\t\v\f\x85\u2028\u2029]")


def split_list(text: str) -> tuple[str, ...]:
    """Split at commas, semicolons, tabs and line ends; empty and repeated parts are dropped."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, _BETWEEN.split(text)))))
