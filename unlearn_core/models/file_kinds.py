"""What a file really is, for the message that refuses it."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..foundation.json_file import parse_json
from ..foundation.plurals import count_of
from ..foundation.safetensors_file import DTYPES, Entry
from .errors import ModelError
from .families import OTHERS

LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
AGAIN = "copy or download it again"
# Kinds of files by their first bytes, and the cure.
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (rb"GGUF", "is a GGUF file, whose weights are quantised; choose its 16-bit version"),
    (rb"\x80[\x02-\x05]", "is a pickle under another name, which is never loaded"),
    (rb"\s*<(!doctype|html|\?xml|head)", f"is a web page and not the file; {AGAIN}"),
    (rb"version https://git-lfs", f"is a link to a file in Git LFS and not the file; {AGAIN}"),
    (rb"\x89PNG|\xff\xd8\xff|RIFF|GIF8", "is a picture under another name"),
    (rb"%PDF", "is a PDF document under another name"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd", "is an archive; unpack it first"),
    (rb"\x89HDF", "is a model in Keras' format, which is not supported"),
    (rb"\s*[{\[]", f"is a text (JSON) and not weights; {AGAIN}"),
)


def describe_unreadable(file: Path) -> str:
    """A description of a file that cannot be read as safetensors, with the cure."""
    try:
        with file.open("rb") as stream:
            start = stream.read(64)
            length = _header_length(start)
            header = stream.read(length + 8 - len(start)) if length else b""
        size = file.stat().st_size
    except OSError:
        return f"{file.name!r} cannot be opened"
    if not size:
        return f"{file.name!r} is empty; {AGAIN}"
    # First: the first byte of a length may be any, also those of a pickle or an archive.
    if length:
        return f"{file.name!r} {_damage((start + header)[8 : 8 + length], length, size)}; {AGAIN}"
    if start.startswith(b"PK\x03\x04"):
        return f"{file.name!r} {_zip(file)}"
    for beginning, description in BEGINNINGS:
        if re.match(beginning, start, re.IGNORECASE):
            return f"{file.name!r} {description}"
    if not start.strip(b"\0"):
        return f"{file.name!r} begins with zeros, like an unfinished download; {AGAIN}"
    if size < 64:
        return (
            f"{file.name!r} is truncated or damaged: it has only {count_of(size, 'byte')}; {AGAIN}"
        )
    return f"{file.name!r} is not a safetensors file, or its beginning is damaged; {AGAIN}"


def _header_length(start: bytes) -> int:
    """The length of a safetensors header, which begins with ``{``; 0 if this is none."""
    if len(start) < 9 or start[8:9] != b"{":
        return 0
    (length,) = struct.unpack("<Q", start[:8])
    return length if 2 <= length <= LARGEST_HEADER else 0


def _damage(header: bytes, length: int, size: int) -> str:
    if len(header) < length:
        return f"is truncated: it has {size:,} bytes and ends within its header"
    try:
        end = 8 + length + max(_ends(parse_json(header, LARGEST_HEADER)), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return "is damaged: its header is not valid"
    if size < end:
        return f"is truncated: it has {size:,} of {end:,} bytes"
    if size > end:
        return f"is damaged: it has {size:,} bytes, but its header describes {end:,}"
    return "is damaged: its header is not valid"


def _ends(header: dict[str, Any]) -> Iterable[int]:
    for name, entry in header.items():
        if name != "__metadata__":
            yield int(entry["data_offsets"][1])


def _zip(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"is a truncated archive or pickle under another name; {AGAIN}"
    if any(name.endswith("data.pkl") for name in names):
        return "is a pickle under another name, which is never loaded"
    return "is an archive; unpack it first"


def check_dtypes(entries: Iterable[Entry], name: str) -> None:
    """Require numbers in which a change of a weight can be trained and stored.

    Args:
        name: of the file, or of the part of a folder.

    Raises:
        ModelError: 8 bits, for example.
    """
    unusable = next((entry.dtype for entry in entries if entry.dtype not in DTYPES), None)
    if unusable is not None:
        raise ModelError(
            f"model: {name!r} contains {unusable} numbers, which cannot be trained; "
            "choose its fp16, bf16 or fp32 version"
        )


def kind_of_weights(keys: Iterable[str]) -> str:
    """The kind of file that has tensors of these names, as words after "is"; empty if unknown."""
    names = list(keys)
    return next((kind for part, kind in OTHERS if any(part in name for name in names)), "")
