"""Locks between processes. The operating system releases them when their owner dies."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def acquire(file: Path) -> FileLock | None:
    """Hold the lock of ``file`` until its ``release``; None if the file system has no locks.

    Raises:
        BlockingIOError: a live process holds it.
    """
    lock = FileLock(str(file))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"{str(file)!r} is locked by another process") from None
    except (OSError, NotImplementedError):  # some network drives
        return None
    return lock


def is_held(file: Path) -> bool | None:
    """Whether a live process holds the lock of ``file``; None if there is no such file, or no locks
    on its file system."""
    if not file.exists():
        return None
    try:
        lock = acquire(file)
    except BlockingIOError:
        return True
    if lock is None:
        return None
    lock.release()
    return False
