"""Writes that survive a power failure: flush files and folders to the disk."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)
"""Answers of network drives and FUSE file systems that cannot flush a folder."""


def sync_file(file: Path) -> None:
    """Return when the content of a file is on the disk."""
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        if sys.platform == "darwin":
            _full_sync(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the entries of a folder are on the disk. Windows has no such call; NTFS writes
    them to its journal in order."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Return when a file, or all of a folder, is on the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def create_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and wait until they are on the disk."""
    if folder.is_dir():
        return
    create_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _full_sync(descriptor: int) -> None:
    """macOS: ``fsync`` alone leaves the data in the cache of the drive."""
    import fcntl

    try:
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]
    except OSError:
        os.fsync(descriptor)
