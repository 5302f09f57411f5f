"""The mark of this pack on the files and folders that it wrote. Nothing else is ever replaced or
deleted.

A safetensors file is marked in its metadata. A folder contains ``MANIFEST``, the list of the files
that were written, with their SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError

from .json_file import JsonError, read_object
from .safetensors_file import file_hash, read_header
from .version import VERSION

MANIFEST = "unlearn_files.json"
VERSION_KEY = "unlearn.version"  # in the metadata of a safetensors file
EARLIER_MARK = "unlearn_report.json"  # of folders that earlier versions saved

Hashes = Mapping[str, Sequence[str]]
"""Path within the folder -> SHA-256 of the file, and of its next version while that is written."""


def is_own(path: Path) -> bool:
    """Whether this pack saved this model file or folder."""
    if path.is_dir():
        return (path / MANIFEST).is_file() or (path / EARLIER_MARK).is_file()
    try:
        return VERSION_KEY in read_header(path).metadata
    except (OSError, SafetensorError, ValueError):
        return False


def read_manifest(folder: Path) -> Hashes | None:
    """The files that this pack wrote into a folder; None without a readable manifest."""
    try:
        files = read_object(folder / MANIFEST)["files"]
    except (OSError, JsonError, KeyError):
        return None
    if not isinstance(files, dict) or not all(isinstance(h, list) for h in files.values()):
        return None
    return files


def manifest_text(files: Hashes) -> str:
    content = {"version": VERSION, "files": {name: list(files[name]) for name in sorted(files)}}
    return json.dumps(content, indent=1) + "\n"


def write_manifest(folder: Path) -> None:
    """List all files of a folder that this pack has just written."""
    files = {name: [file_hash(folder / name)] for name in entries(folder) if name != MANIFEST}
    (folder / MANIFEST).write_text(manifest_text(files), encoding="utf-8")


def changed_file(folder: Path) -> str | None:
    """The first file of an own folder that somebody has changed since; None if there is none."""
    for name, hashes in (read_manifest(folder) or {}).items():
        file = folder / name
        if os.path.lexists(file) and not is_unchanged(file, hashes):
            return name
    return None


def is_unchanged(file: Path, hashes: Sequence[str]) -> bool:
    return file.is_file() and not file.is_symlink() and file_hash(file) in hashes


def entries(folder: Path) -> Iterator[str]:
    """The files and links below a folder, as relative paths with slashes."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*links, *names):
            yield Path(parent, name).relative_to(folder).as_posix()
