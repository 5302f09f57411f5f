"""Text files as editors and consoles of all systems write them."""

from __future__ import annotations

import codecs
from pathlib import Path

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
PUNCTUATION = {*range(0x91, 0x98), 0x85}
"""Bytes of typographic quotation marks, dashes and dots, alike in all of Windows' code pages from
1250 to 1258."""


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as Windows
    PowerShell redirects output. A file in an old code page of Windows is read if it has no letters
    beyond ASCII, because their meaning depends on the code page.

    Raises:
        OSError: the file cannot be read.
        UnicodeError: the encoding is unknown; names the cure.
    """
    content = file.read_bytes()
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _decoded(file, content[len(mark) :], encoding)
    if b"\0" in content:  # valid in UTF-8, but no editor writes it
        raise UnicodeError(
            f"{file.name!r} is not UTF-8 text (it contains zeros, as UTF-16 does); save it as UTF-8"
        )
    if all(byte < 0x80 or byte in PUNCTUATION for byte in content):
        return _decoded(file, content, "cp1252")
    return _decoded(file, content, "utf-8")


def _decoded(file: Path, content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnicodeError(
            f"{file.name!r} is not {encoding.upper()} text ({error.reason} at byte {error.start}); "
            "save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
