"""Reads the header of a safetensors file and rewrites such a file in a stream.

The format: 8 bytes of header length, a JSON header with the dtype, shape and place of every tensor,
then the tensors' bytes. Writing it ourselves keeps the peak of memory at one tensor where the
library would hold them all.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .progress import SAVING, Progress

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
BLOCK = 1 << 22
ALIGNMENT = 8  # readers map the file, and a tensor's bytes must lie where its dtype may


@dataclass(frozen=True)
class Entry:
    """One tensor's header entry; ``start`` and ``end`` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors, in their order on disk."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(file: Path) -> Header:
    """The header of a complete, undamaged file.

    Raises:
        SafetensorError: truncated, damaged, or no safetensors file.
    """
    with safe_open(file, framework="pt"):
        pass  # the library checks every length and offset against the file
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        content: dict[str, Any] = json.loads(stream.read(length))
    metadata = content.pop("__metadata__", None) or {}
    entries = {
        name: Entry(said["dtype"], tuple(said["shape"]), *said["data_offsets"])
        for name, said in content.items()
    }
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].start))
    return Header(ordered, metadata, 8 + length)


def read_tensors(file: Path, names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The named tensors, floating ones in ``dtype`` if one is given; owns its memory."""
    with safe_open(file, framework="pt") as opened:
        return {name: _own(opened.get_tensor(name), dtype) for name in names}


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(_stored_as(tensor, dtype), copy=True)


def _stored_as(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def file_hash(file: Path, progress: Progress | None = None) -> str:
    """SHA-256 of the whole file, hex; ``progress`` ticks in bytes."""
    digest, progress = hashlib.sha256(), progress or Progress()
    for block in blocks(file):
        digest.update(block)
        progress.tick(len(block))
    return digest.hexdigest()


def blocks(file: Path) -> Iterator[bytes]:
    """A file's content, piece by piece."""
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def copy_replacing(
    source: Path,
    destination: Path,
    replacement: Callable[[str], Tensor | None],
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
) -> None:
    """Copy a file byte for byte, with some tensors' values and the metadata replaced.

    Args:
        replacement: a tensor's new value of the same shape (its dtype becomes the file's), or None
            to keep it.
        metadata: the new metadata, given the SHA-256 of the new tensors' bytes.
        progress: ticks in bytes.
    """
    header = read_header(source)

    def chunks() -> Iterator[bytes]:
        with source.open("rb") as stream:
            for name, entry in header.tensors.items():
                value = replacement(name)
                if value is None:
                    stream.seek(header.data_start + entry.start)
                    left = entry.end - entry.start
                    while left:
                        block = stream.read(min(BLOCK, left))
                        if not block:
                            raise OSError(f"{source.name!r} is shorter than when it was opened")
                        left -= len(block)
                        yield block
                else:
                    yield _converted(name, value, entry)
                    del value  # or it would stay while the next one is computed

    write(destination, header.tensors, chunks, metadata, progress)


def write_tensors(
    destination: Path,
    tensors: Mapping[str, Tensor],
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
) -> None:
    """Write a new file; ``metadata`` is given the SHA-256 of the tensors' bytes."""
    write_converted(destination, tensors, None, metadata, progress)


def write_converted(
    destination: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
    replacement: Callable[[str], Tensor | None] = lambda _: None,
) -> None:
    """Write a new file, with each tensor converted just before it is written: the peak of memory
    beyond ``tensors`` is one tensor.

    Args:
        dtype: of the floating-point tensors in the file; None for their own.
        metadata: given the SHA-256 of the tensors' bytes.
        replacement: a tensor's new value of the same shape, or None to write the given one.

    Raises:
        ValueError: a replacement of another shape.
    """
    entries, at = {}, 0
    dtypes = {name: _stored_as(tensor, dtype) for name, tensor in tensors.items()}
    # Wide dtypes first, as the library orders them: every tensor is then aligned.
    for name in sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name)):
        shape = tuple(tensors[name].shape)
        size = math.prod(shape) * dtypes[name].itemsize
        entries[name] = Entry(CODES[dtypes[name]], shape, at, at + size)
        at += size

    def content(name: str) -> bytes:
        value = replacement(name)
        return _converted(name, tensors[name] if value is None else value, entries[name])

    def chunks() -> Iterator[bytes]:
        return map(content, entries)

    write(destination, entries, chunks, metadata, progress)


def write(
    destination: Path,
    entries: Mapping[str, Entry],
    chunks: Callable[[], Iterator[bytes]],
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
) -> None:
    """Write header and bytes. The bytes are made twice, since their hash stands before them."""
    size = sum(entry.end - entry.start for entry in entries.values())
    digest = hashlib.sha256()
    progress = progress or Progress()
    with progress.phase(SAVING, 2 * size):
        for chunk in chunks():
            digest.update(chunk)
            progress.tick(len(chunk))
        _write(destination, entries, chunks(), metadata(digest.hexdigest()), progress)


def _write(
    destination: Path,
    entries: Mapping[str, Entry],
    chunks: Iterable[bytes],
    metadata: Mapping[str, str],
    progress: Progress,
) -> None:
    said: dict[str, object] = {"__metadata__": dict(metadata)}
    for name, entry in entries.items():
        said[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with destination.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for chunk in chunks:
            stream.write(chunk)
            progress.tick(len(chunk))


def _converted(name: str, value: Tensor, entry: Entry) -> bytes:
    if tuple(value.shape) != entry.shape:
        raise ValueError(
            f"tensor {name!r} has shape {list(entry.shape)} in the file, got {list(value.shape)}"
        )
    return raw_bytes(value.to(DTYPES[entry.dtype]))


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor's bytes in the order of the format (little-endian, C-contiguous)."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
