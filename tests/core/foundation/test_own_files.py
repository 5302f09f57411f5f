"""The list of own files in a folder, which anybody may have changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from unlearn_core.foundation.own_files import MANIFEST, changed_file, read_manifest, write_manifest


def test_what_was_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    write_manifest(tmp_path)
    files = read_manifest(tmp_path)
    assert files is not None
    assert list(files) == ["a.txt"]
    assert changed_file(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b'{"files": ',
        b'{"files": 3}',
        b'{"files": {"a.txt": 3}}',
        b"[" * 100_000,
        b'{"files": {"a.txt": ' + b"[" * 65 + b"]" * 65 + b"}}",
        json.dumps({"files": {"a.txt": ["x" * 21_000_000]}}).encode(),
    ],
    ids=range(10),
)
def test_an_unreadable_list_makes_no_file_an_own_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    assert read_manifest(tmp_path) is None
    assert changed_file(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    assert read_manifest(tmp_path) is None
