"""A model of what a file system may lose in a power failure.

The operations of a real save are recorded. A file's content is certain only after its ``fsync``;
the creation, removal or renaming of an entry only after the ``fsync`` of its folder. Before that,
each of them may be lost, in any combination. A renaming is lost as a whole or not at all. Real file
systems lose less: ext4, NTFS and APFS keep the order of entries.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

MOST_SUBSETS = 128  # of the operations that may be lost at one moment

Tree = dict[str, bytes | None]  # relative path -> content; None for a folder
Place = tuple[int, str]  # a folder's number and a name in it


@dataclass
class Disk:
    """What is certainly on the disk, and what is not yet."""

    entries: dict[Place, int] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)  # latest
    safe: dict[int, bytes] = field(default_factory=dict)  # after the last ``fsync``
    folders: set[int] = field(default_factory=set)
    pending: list[tuple[Place | None, Place | None, int]] = field(default_factory=list)
    """Changes of entries as old place, new place, and number of the file or folder."""


class Recorder:
    """Records what happens below a folder, as states of the disk after each operation. Its methods
    stand in for those of ``os``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers = root.stat().st_ino
        self.disk = Disk(folders={self.numbers})
        self.visible = self._look()
        self.disk.entries = dict(self.visible)
        self.disk.safe = dict(self.disk.content)
        self.cuts: list[Disk] = []
        self._replace, self._fsync = os.replace, os.fsync

    def replace(self, source: Any, target: Any) -> None:
        self.note_changes()
        old, new = self._place(Path(source)), self._place(Path(target))
        number = self.visible[old]
        self._replace(source, target)
        self.disk.pending.append((old, new, number))
        self.visible = self._look()
        self.cut()

    def fsync(self, descriptor: int) -> None:
        self.note_changes()
        self._fsync(descriptor)
        number = os.fstat(descriptor).st_ino
        if number in self.disk.content:
            self.disk.safe[number] = self.disk.content[number]
        done = [op for op in self.disk.pending if number in {p[0] for p in op[:2] if p}]
        for operation in done:
            apply(self.disk.entries, operation)
        self.disk.pending = [op for op in self.disk.pending if op not in done]
        self.cut()

    def note_changes(self) -> None:
        """All that was written, created and deleted since the last operation."""
        before, self.visible = self.visible, self._look()
        for place, number in before.items():
            if self.visible.get(place) != number:
                self.disk.pending.append((place, None, number))
                self.cut()
        for place, number in self.visible.items():
            if before.get(place) != number:
                self.disk.pending.append((None, place, number))
                self.cut()

    def cut(self) -> None:
        d = self.disk
        self.cuts.append(
            Disk(dict(d.entries), dict(d.content), dict(d.safe), set(d.folders), list(d.pending))
        )

    def _place(self, path: Path) -> Place:
        return path.parent.stat().st_ino, path.name

    def _look(self) -> dict[Place, int]:
        entries = {}
        for folder, folders, files in os.walk(self.root):
            parent = Path(folder)
            for name in (*folders, *files):
                number = (parent / name).stat().st_ino
                entries[(parent.stat().st_ino, name)] = number
                if name in folders:
                    self.disk.folders.add(number)
                else:
                    self.disk.content[number] = (parent / name).read_bytes()
        return entries


def apply(entries: dict[Place, int], operation: tuple[Place | None, Place | None, int]) -> None:
    """Apply a change of an entry. Its file may have been created or moved by a lost change."""
    old, new, number = operation
    if old is not None and entries.get(old) == number:
        del entries[old]
    if new is not None:
        entries[new] = number


def images(disk: Disk, root: int, chance: random.Random) -> Iterator[Tree]:
    """What may be on the disk after a power failure in this state."""
    count = len(disk.pending)
    if 2**count <= MOST_SUBSETS:
        subsets = itertools.product((True, False), repeat=count)
    else:
        prefixes = [[i < n for i in range(count)] for n in range(count + 1)]
        drawn = [[chance.random() < 0.5 for _ in range(count)] for _ in range(MOST_SUBSETS)]
        subsets = iter(map(tuple, prefixes + drawn))
    for subset in subsets:
        entries = dict(disk.entries)
        for operation, remains in zip(disk.pending, subset, strict=True):
            if remains:
                apply(entries, operation)
        for content in (disk.content, disk.safe):
            yield dict(_tree(disk, entries, content, root, ""))


def _tree(
    disk: Disk, entries: dict[Place, int], content: dict[int, bytes], folder: int, path: str
) -> Iterator[tuple[str, bytes | None]]:
    for (parent, name), number in entries.items():
        if parent == folder:
            if number in disk.folders:
                yield path + name, None
                yield from _tree(disk, entries, content, number, f"{path}{name}/")
            else:
                yield path + name, content.get(number, b"")


def record(root: Path, save: Callable[[], None]) -> list[Disk]:
    """Save into a folder; returns the state of the disk after each operation, and at the end."""
    recorder = Recorder(root)
    with patch("os.replace", recorder.replace), patch("os.fsync", recorder.fsync):
        save()
        recorder.note_changes()
        recorder.cut()
    return recorder.cuts


def after_power_failures(
    root: Path, cuts: Sequence[Disk], into: Path
) -> Iterator[tuple[Path, bool]]:
    """Folders with what each possible power failure leaves of ``root``.

    Args:
        cuts: from ``record``.
        into: an empty folder for them.

    Yields:
        the folder, and whether the save had ended before the failure.
    """
    number = root.stat().st_ino
    seen: set[tuple[bool, frozenset[tuple[str, bytes | None]]]] = set()
    chance = random.Random(0)
    for cut in cuts:
        saved = cut is cuts[-1]
        for tree in images(cut, number, chance):
            key = saved, frozenset(tree.items())
            if key not in seen:
                seen.add(key)
                yield _write(tree, into / str(len(seen))), saved


def _write(tree: Tree, folder: Path) -> Path:
    folder.mkdir()
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    return folder
