"""A folder of the user in which this pack replaces and deletes only the files that it wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .atomic import appearing
from .disk_errors import cure
from .own_files import MANIFEST, Hashes, is_unchanged, manifest_text, read_manifest
from .safetensors_file import file_hash


class OwnFolder:
    """Single files in a folder that may contain others. ``MANIFEST`` lists the pack's own files
    with their SHA-256; a file that somebody has changed since is no longer its own.

    Args:
        adopted: names of own files in a folder of an earlier version, which had no list.
    """

    def __init__(self, folder: Path, adopted: Iterable[str] = ()) -> None:
        self.folder, self._adopted = folder, tuple(adopted)

    def refuse_others(self, names: Iterable[str], field: str) -> None:
        """Check in advance that files can be written under these names.

        Raises:
            FileExistsError: one of them is not the pack's own.
        """
        files = self._files()
        for name in names:
            if not self._may_replace(name, files):
                raise FileExistsError(
                    f"{field}: {name!r} in {str(self.folder)!r} was not written by Unlearn, or has "
                    "been changed since; move it away, or choose another name or folder"
                )

    def write(self, name: str, content: bytes, field: str = "out") -> None:
        """Write a file, in place of an earlier version of it.

        Raises:
            FileExistsError: the file that is there is not the pack's own.
            OSError: the disk is full or not writable; the earlier version is still there.
        """
        self.refuse_others([name], field)
        files, file = dict(self._files()), self.folder / name
        # With both hashes, so that the file is known whenever the writing is interrupted.
        present = [file_hash(file)] if file.is_file() else []
        files[name] = [*present, hashlib.sha256(content).hexdigest()]
        with appearing(self.folder / MANIFEST) as part:
            part.write_text(manifest_text(files), encoding="utf-8")
        with appearing(file) as part:
            part.write_bytes(content)

    def remove(self, names: Iterable[str]) -> None:
        """Delete the files of these names that are the pack's own.

        Raises:
            OSError: a file is open on Windows, or the folder is not writable.
        """
        files = self._files()
        for name in names:
            file = self.folder / name
            if name in files and is_unchanged(file, files[name]):
                try:
                    file.unlink()
                except OSError as error:
                    raise OSError(
                        f"{str(file)!r} could not be deleted ({error}); {cure(error, self.folder)}"
                    ) from error

    def names(self) -> list[str]:
        """The names of all files that the pack has written."""
        return list(self._files())

    def _may_replace(self, name: str, files: Hashes) -> bool:
        file = self.folder / name
        if name == MANIFEST:
            return False
        if not file.exists() and not file.is_symlink():
            return True
        return name in files and is_unchanged(file, files[name])

    def _files(self) -> Hashes:
        files = read_manifest(self.folder)
        if files is None:
            existing = {name: self.folder / name for name in self._adopted}
            files = {name: [file_hash(f)] for name, f in existing.items() if f.is_file()}
        return files
