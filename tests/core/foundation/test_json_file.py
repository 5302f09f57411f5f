"""JSON from strangers: limits of size and depth, and one clear error for everything else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from unlearn_core.foundation.json_file import DEEPEST, JsonError, parse_json, read_json, read_object


@pytest.mark.parametrize("content", [None, 3, "a", [], {}, [1, {"a": [2.5, None, "ü"]}]])
def test_what_json_writes_is_read(tmp_path: Path, content: object) -> None:
    file = tmp_path / "content.json"
    text = json.dumps(content)
    file.write_text(text, encoding="utf-8-sig")  # as some editors on Windows do
    assert read_json(file) == parse_json(text) == parse_json(text.encode()) == content


@pytest.mark.parametrize("depth", [DEEPEST + 1, 500, sys.getrecursionlimit(), 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_nesting_is_refused(depth: int, opening: str, closing: str) -> None:
    text = opening * depth + "1" + closing * depth
    with pytest.raises(JsonError, match="is nested too deeply; the limit is 64 levels"):
        parse_json(text)


def test_the_deepest_allowed() -> None:
    parse_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("text", ["", "{", "nul", "[1,]", b"\xff\xfe", "1" * 5000])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(JsonError, match="is not JSON"):
        parse_json(text)


def test_files_beyond_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text('"' + "a" * 100 + '"', encoding="utf-8")
    with pytest.raises(JsonError, match="has 102 bytes; the limit is 50"):
        read_json(file, 50)
    with pytest.raises(JsonError, match="is not a JSON object"):
        read_object(file)
    file.write_bytes(b"\xff")
    with pytest.raises(JsonError, match="is not UTF-8 text"):
        read_json(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent.json")
    with pytest.raises(JsonError, match="is not a regular file"):
        read_json(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(JsonError, match="is not a regular file"):
        read_json(tmp_path / "pipe.json")
