"""The picture cache: latents on disk, each with a checksum, up to a limit of the total size."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..foundation.atomic import appearing
from ..foundation.checks import check_number, require
from ..foundation.disk_errors import cure, delete
from ..foundation.json_file import parse_json, read_object
from ..foundation.progress import Progress
from ..foundation.safetensors_file import raw_bytes

GIGABYTE = 10**9
LIMIT = 5 * GIGABYTE  # 75,000 pictures of Stable Diffusion 1.5, 19,000 of SDXL
SMALLEST, LARGEST = 0.1, 1_000_000  # gigabytes that may be chosen as the limit
LIMIT_FILE = "limit.json"  # in the folder of the cache, with the user's limit
LARGEST_FILE = 2**28  # bytes; the latent of a picture of 4096 x 4096 pixels has 17 million
OWN_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
PART = re.compile(r"unlearn-.*\.part")  # a file that is being written
HOUR = 60 * 60  # seconds, after which it is a leftover
CHECKSUM = "sha256"


@dataclass(frozen=True)
class CacheSize:
    """The number of pictures in a cache, and their size in bytes."""

    pictures: int
    size: int


class LatentCache:
    """A folder with one file per latent, named by a hash of everything that determines it.

    Several processes may share it. Only files with such names are ever deleted. A file of an
    earlier version has no checksum: it is accepted if it has the expected form, and gets one.

    Args:
        limit: bytes of all files; ``trim`` deletes those that have not been used for longest. By
            default, the limit that the user has chosen for this folder.
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        self.folder = Path(folder)
        self.limit = self._chosen_limit() if limit is None else limit
        self._failed = False

    def get(self, key: str, progress: Progress | None = None) -> Tensor | None:
        """The latent [C, h, w] stored under ``key``; None if there is none, or it is damaged or not
        finite."""
        file = self._file(key)
        try:
            content = _content(file)
            latent, header = load(content)["latent"], _header(content)
        except (OSError, SafetensorError, KeyError, ValueError, struct.error):
            return None
        metadata = header.get("__metadata__")
        if not latent.isfinite().all():
            return None
        if metadata is None:
            if set(header) != {"latent"} or latent.dtype != torch.float32 or latent.ndim != 3:
                return None
            self.put(key, latent, progress)
        elif metadata.get(CHECKSUM) != _checksum(key, latent):
            return None
        with suppress(OSError):
            os.utime(file)  # for ``trim``; many disks do not record the access
        return latent

    def put(self, key: str, latent: Tensor, progress: Progress | None = None) -> None:
        """Store a latent. After a failure, such as a full disk, nothing more is stored.

        Args:
            progress: announces the failure.
        """
        if self._failed:
            return
        latent = latent.contiguous()
        content = save({"latent": latent}, {CHECKSUM: _checksum(key, latent)})
        try:
            self._write(self._file(key), content)
        except OSError as error:
            self._failed = True
            sentence = (
                f"Warning: the picture cache could not be written ({error}). The run goes on "
                f"without it; later runs will draw these pictures again. To use it again, "
                f"{cure(error, self.folder)}."
            )
            (progress or Progress()).announce(sentence)

    def trim(self) -> None:
        """Delete the files that have not been used for longest, until the limit is met, and the
        left-overs of killed processes."""
        files = sorted(self._entries(), key=lambda entry: entry[1].st_mtime)
        size = sum(status.st_size for _, status in files)
        for file, status in files:
            if size <= self.limit:
                break
            if delete(file):
                size -= status.st_size
        if self.folder.is_dir():
            for path in list(self.folder.iterdir()):
                with suppress(OSError):
                    if PART.fullmatch(path.name) and time.time() - path.stat().st_mtime > HOUR:
                        delete(path)

    def set_limit(self, gigabytes: object) -> None:
        """Choose the limit of this folder, also for later runs, and ``trim``.

        Raises:
            ValueError: not a number of gigabytes.
            OSError: the folder is not writable.
        """
        self.limit = _bytes_of(gigabytes)
        with appearing(self.folder / LIMIT_FILE) as part:
            part.write_text(json.dumps({"gigabytes": gigabytes}), encoding="utf-8")
        self.trim()

    def _chosen_limit(self) -> int:
        """``LIMIT`` if the user has chosen none, or if the file is damaged."""
        try:
            return _bytes_of(read_object(self.folder / LIMIT_FILE).get("gigabytes"))
        except (OSError, ValueError):
            return LIMIT

    def clear(self) -> CacheSize:
        """Delete all pictures, and return what remains: files that are open on Windows."""
        for file, _ in self._entries():
            delete(file)
        return self.size()

    def size(self) -> CacheSize:
        sizes = [status.st_size for _, status in self._entries()]
        return CacheSize(len(sizes), sum(sizes))

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        if not self.folder.is_dir():
            return
        for path in list(self.folder.iterdir()):
            if OWN_NAME.fullmatch(path.name):
                with suppress(OSError):  # another process has deleted it
                    yield path, path.stat()

    def _write(self, file: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=self.folder, prefix="unlearn-", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            os.chmod(part, 0o644)  # else only this user could read it
            os.replace(part, file)
        except PermissionError:
            delete(Path(part))
            if not file.exists():  # else another process is reading the same picture, on Windows
                raise
        except BaseException:
            delete(Path(part))
            raise

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def _bytes_of(gigabytes: object) -> int:
    number = check_number("limit", gigabytes)
    rule = f"a number of gigabytes from {SMALLEST:g} to {LARGEST}"
    require(SMALLEST <= number <= LARGEST, "limit", gigabytes, rule)
    return round(number * GIGABYTE)


def _content(file: Path) -> bytes:
    """Raises:
    OSError: the file cannot be read, or is too large or not a regular one.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise OSError(f"{file.name!r} is not a latent")
    return file.read_bytes()


def _header(content: bytes) -> Mapping[str, Any]:
    (length,) = struct.unpack_from("<Q", content)
    return parse_json(content[8 : 8 + length])


def _checksum(key: str, latent: Tensor) -> str:
    """Of the values, their form, and the name of the file."""
    form = f"{key} {latent.dtype} {list(latent.shape)} "
    return hashlib.sha256(form.encode() + raw_bytes(latent)).hexdigest()
