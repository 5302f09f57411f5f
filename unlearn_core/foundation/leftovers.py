"""The hidden folders in which new versions are written: their names, owners and removal."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .durable import create_folder, sync_folder
from .locks import acquire, is_held
from .own_files import MANIFEST, entries, is_own, read_manifest

LOCK = "lock"
OLD = "old"  # the previous version of a folder, during the swap
DAY = 24 * 60 * 60  # seconds after which a hidden folder without a lock is a leftover


class Workspace:
    """A hidden folder beside ``destination``, locked as long as this process lives. A sibling,
    because a move is atomic only within one file system.

    Attributes:
        part: path of the new version. Other programs may list the folder during the write, so its
            name does not look like the name of a model.
        old: path of the previous version of a folder, until the new one is in place.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        parent = destination.parent
        self.folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=parent))
        self.part = self.folder / f"{destination.name}.part"
        self.old = self.folder / OLD
        self._lock = acquire(self.folder / LOCK)

    def remove(self) -> None:
        if self._lock is not None:
            self._lock.release()
        _remove(self.folder, self.destination)


def clean_leftovers(destination: Path) -> None:
    """Remove the hidden folders of killed saves to ``destination``. If one was killed while it
    replaced a folder, the previous version is restored.

    Raises:
        BlockingIOError: another process is saving to ``destination`` at this moment.
    """
    for folder in _workspaces(destination.parent, re.escape(destination.name)):
        if _has_ended(folder):
            _remove(folder, destination)
        elif is_held(folder / LOCK):
            raise BlockingIOError(
                f"name: another program is saving {destination.name!r} in "
                f"{str(destination.parent)!r} at this moment; wait until it has finished, or "
                "choose another name"
            )


def clean_folder(folder: Path) -> None:
    """Remove the hidden folders of all killed saves into ``folder``, see ``clean_leftovers``."""
    for path in _workspaces(folder, ".+"):
        if _has_ended(path):
            _remove(path, folder / path.name[1:-9])


def _workspaces(parent: Path, name: str) -> Iterator[Path]:
    pattern = re.compile(rf"\.{name}-[a-z0-9_]{{8}}")  # as ``mkdtemp`` does
    if parent.is_dir():
        for path in list(parent.iterdir()):
            if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _has_ended(folder: Path) -> bool:
    contents = {path.name for path in folder.iterdir()}
    if not contents or not contents.issubset({LOCK, OLD, f"{folder.name[1:-9]}.part"}):
        return False  # not a folder of this pack
    held = is_held(folder / LOCK)
    if held is not None:
        return not held
    return time.time() - folder.stat().st_mtime > DAY  # also those of earlier versions


def _remove(folder: Path, destination: Path) -> None:
    """Remove a hidden folder, but never the only copy of a model, and no file of the user. What
    cannot be removed now, because it is open on Windows, the next save removes."""
    old = folder / OLD
    with suppress(OSError):
        if not os.path.lexists(destination) and os.path.lexists(old):
            os.replace(old, destination)
            sync_folder(destination.parent)
        elif old.is_symlink():
            old.unlink()
        elif old.is_dir() and is_own(destination):
            _empty(old, destination)
    if not os.path.lexists(old):
        shutil.rmtree(folder, ignore_errors=True)


def _empty(old: Path, new: Path) -> None:
    """Delete the files of the previous version that this pack wrote, and move all others to the
    new version."""
    manifest = read_manifest(old)
    own = set(entries(new) if manifest is None else manifest)
    names = [name for name in entries(old) if name != MANIFEST]
    for name in names:
        target = new / name
        if name in own:
            (old / name).unlink()
        elif not os.path.lexists(target):
            create_folder(target.parent)
            os.replace(old / name, target)
            sync_folder(target.parent)
    for parent, _, _ in os.walk(old):
        sync_folder(Path(parent))
    if set(entries(old)) == {MANIFEST}:  # last, because it is needed again if this is interrupted
        (old / MANIFEST).unlink()
    for parent, _, _ in os.walk(old, topdown=False):
        if not any(Path(parent).iterdir()):
            Path(parent).rmdir()
