"""A simulation of how Windows treats open files.

It refuses to replace, rename or delete a file that is open or mapped into memory, and to rename a
folder with such a file in it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest


def in_use(path: Path) -> bool:
    """Whether this process has the file, or a file below the folder, open or mapped."""
    path = path.parent.resolve() / path.name
    opened = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the descriptor of this listing
            continue
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        opened.add(line.partition("/")[1] + line.partition("/")[2])
    files = {name for name in opened if name.startswith("/") and not os.path.isdir(name)}
    return any(name == str(path) or name.startswith(f"{path}/") for name in files)


def pretend_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse in this process what Windows would refuse."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs Linux to see which files are open")

    def refuse(path: Any, folder: int | None = None) -> None:
        place = Path(os.fsdecode(path))
        if folder is not None:
            place = Path(os.readlink(f"/proc/self/fd/{folder}")) / place
        if in_use(place):
            sentence = "The process cannot access the file because it is being used"
            raise PermissionError(errno.EACCES, sentence, str(place))

    replace, rename, unlink = os.replace, os.rename, os.unlink

    def replacing(source: Any, target: Any, **options: Any) -> None:
        refuse(source)
        refuse(target)
        replace(source, target, **options)

    def renaming(source: Any, target: Any, **options: Any) -> None:
        refuse(source)
        refuse(target)
        rename(source, target, **options)

    def unlinking(path: Any, *, dir_fd: int | None = None) -> None:
        refuse(path, dir_fd)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "rename", renaming)
    monkeypatch.setattr(os, "unlink", unlinking)
    monkeypatch.setattr(os, "remove", unlinking)
