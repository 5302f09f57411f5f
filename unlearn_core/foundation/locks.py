"""Locks between processes. The operating system releases them when their owner dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .durable import create_folder

LOCK = ".unlearn.lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Context in which no other process works in this folder.

    The lock's hidden file stays in the folder. If it were deleted, a process that opened it before
    could lock the deleted file while a third one locks a new file of the same name.

    Raises:
        BlockingIOError: another one does.
    """
    create_folder(folder)
    try:
        lock = acquire(folder / LOCK)
    except BlockingIOError:
        raise BlockingIOError(
            f"out: another run is writing into {str(folder)!r} at this moment; wait until it has "
            "finished, or choose another folder"
        ) from None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


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
