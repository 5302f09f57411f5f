"""Text files as Windows, macOS and Linux write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from unlearn_core.foundation.text_files import read_text

TEXT = "a café, “ink” – 水墨 🐈\nsecond line\n"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),  # PowerShell 5's redirection
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_encoding_with_a_mark(
    tmp_path: Path, mark: bytes, encoding: str, line_end: str
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(mark + TEXT.replace("\n", line_end).encode(encoding))
    assert read_text(file) == TEXT


def test_quotation_marks_of_old_code_pages(tmp_path: Path) -> None:
    file = tmp_path / "caption.txt"
    file.write_bytes("the painter’s “blue” sky – at dawn…".encode("cp1252"))
    assert read_text(file) == "the painter’s “blue” sky – at dawn…"


@pytest.mark.parametrize(
    "content",
    [
        "café".encode("cp1252"),  # in cp1251, the same bytes are another word
        "тушь".encode("cp1251"),
        "中文".encode("gbk"),
        codecs.BOM_UTF16_LE + b"odd",
        b"\xc3",
        "a cat".encode("utf-16-le"),  # valid UTF-8, with a zero after each letter
        "a cat".encode("utf-16-be"),
    ],
)
def test_an_unknown_encoding_is_refused_with_the_cure(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "caption.txt"
    file.write_bytes(content)
    with pytest.raises(UnicodeError, match=r"'caption.txt' is not UTF-.*; save it as UTF-8"):
        read_text(file)
