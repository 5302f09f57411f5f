"""Read JSON that may come from a stranger, within limits of size and depth."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .text_files import read_text

LARGEST = 20_000_000  # characters, or bytes of a file
DEEPEST = 64  # objects and lists within each other; Python's own recursion ends near 1000


class JsonError(ValueError):
    """Not JSON, or JSON beyond the limits. The message follows the name of the source, as in
    ``settings: 'job.json' is not JSON (…)``."""


def read_json(file: Path, largest: int = LARGEST) -> Any:
    """The content of a JSON file in an encoding of ``read_text``.

    Args:
        largest: limit of the file's size in bytes.

    Raises:
        OSError: the file cannot be read.
        JsonError: not a regular file, not JSON, or beyond a limit.
    """
    if not file.is_file():
        if file.exists():
            raise JsonError("is not a regular file")
        raise FileNotFoundError(2, "no such file", str(file))
    size = file.stat().st_size
    if size > largest:
        raise JsonError(f"has {size} bytes; the limit is {largest}")
    try:
        text = read_text(file)
    except UnicodeError as error:
        raise JsonError(str(error).removeprefix(f"{file.name!r} ")) from None
    return parse_json(text, largest)


def read_object(file: Path, largest: int = LARGEST) -> dict[str, Any]:
    """The content of a file that contains a JSON object. The arguments and errors are those of
    ``read_json``."""
    content = read_json(file, largest)
    if not isinstance(content, dict):
        raise JsonError("is not a JSON object")
    return content


def parse_json(text: str | bytes, largest: int = LARGEST) -> Any:
    """The content of a JSON text.

    Raises:
        JsonError: not JSON, or beyond a limit.
    """
    if len(text) > largest:
        raise JsonError(f"has {len(text)} characters; the limit is {largest}")
    try:
        content = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # also for bytes that are not UTF-8, and numbers of 4300 digits
        raise JsonError(f"is not JSON ({error})") from None
    _check_depth(content)
    return content


def _check_depth(content: object) -> None:
    """Walks level by level, so that no depth exhausts the stack."""
    level = _containers([content])
    for _ in range(DEEPEST):
        level = _containers(
            inner for part in level for inner in (part.values() if isinstance(part, dict) else part)
        )
    if level:
        raise _too_deep()


def _containers(parts: Iterable[object]) -> list[dict[str, Any] | list[Any]]:
    return [part for part in parts if isinstance(part, (dict, list))]


def _too_deep() -> JsonError:
    return JsonError(f"is nested too deeply; the limit is {DEEPEST} levels")
