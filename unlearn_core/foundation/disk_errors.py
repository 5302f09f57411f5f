"""Errors of full, read-only and limited disks and of open files, with what to do about them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

WINDOWS_ERRORS = {5: errno.EACCES, 32: errno.EACCES, 39: errno.ENOSPC, 112: errno.ENOSPC}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def unwritten(file: Path, error: Exception) -> OSError:
    """The error for a file that could not be written: its path, the reason and the cure."""
    return OSError(f"{str(file)!r} could not be written ({error}); {cure(error, file.parent)}")


def delete(file: Path) -> bool:
    """Delete a file that is needed no more, and return whether it is gone. Windows refuses to
    delete one that is open."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def cure(error: Exception, folder: Path) -> str:
    """What the user can do about an error from writing into a folder."""
    place = str(folder)
    number = error.errno if isinstance(error, OSError) else _system_error(str(error))
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"free some disk space in {place!r}, or save elsewhere"
    if number == errno.EFBIG:
        return f"the disk of {place!r} allows no file of this size; save elsewhere"
    if number == errno.EROFS:
        return f"the disk of {place!r} is read-only; save elsewhere"
    if number in (errno.EACCES, errno.EPERM):
        return (
            "close the programs that have it open (ComfyUI keeps a loaded model open: restart it), "
            f"check the permissions of {place!r}, or choose another name"
        )
    return f"free some disk space or check the permissions of {place!r}"


def _system_error(message: str) -> int | None:
    """The error number in a message of a library that is written in Rust."""
    match = re.search(r"\(os error (\d+)\)", message)
    if match is None:
        return None
    number = int(match.group(1))
    return WINDOWS_ERRORS.get(number) if os.name == "nt" else number
