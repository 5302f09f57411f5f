"""Read the header of a safetensors file, and write or rewrite such a file as a stream.

The format: 8 bytes of header length, a JSON header with the dtype, shape and offsets of every
tensor, then the tensors' bytes. The library would hold all tensors in memory; this module holds
one at a time.
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

from .finite import non_finite
from .progress import SAVING, Progress

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
BLOCK = 1 << 22
ALIGNMENT = 8  # readers map the file into memory, so tensors must be aligned for their dtype


@dataclass(frozen=True)
class Entry:
    """One tensor's header entry; ``start`` and ``end`` are offsets in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The content of a file's header, with the tensors in their order on disk."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(file: Path) -> Header:
    """The header of a complete, undamaged file.

    Raises:
        SafetensorError: truncated, damaged, or not a safetensors file.
    """
    with safe_open(file, framework="pt"):
        pass  # the library checks every length and offset against the file
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        # Without ``json_file``: the library has limited the header's size and depth.
        content: dict[str, Any] = json.loads(stream.read(length))
    metadata = content.pop("__metadata__", None) or {}
    entries = {
        name: Entry(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
        for name, entry in content.items()
    }
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].start))
    return Header(ordered, metadata, 8 + length)


def read_tensors(file: Path, names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Copies of the named tensors, with their own memory; floating-point tensors are converted to
    ``dtype`` unless it is None."""
    with safe_open(file, framework="pt") as opened:
        return {name: _copy(opened.get_tensor(name), dtype) for name in names}


def non_finite_in(file: Path) -> str:
    """The first tensor with NaN or infinity, see ``finite.non_finite``; one is in memory at a time.

    Raises:
        SafetensorError: truncated, damaged, or not a safetensors file.
    """
    with safe_open(file, framework="pt") as opened:
        return non_finite((name, opened.get_tensor(name)) for name in opened.keys())  # noqa: SIM118


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(_stored_dtype(tensor, dtype), copy=True)


def _stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def file_hash(file: Path, progress: Progress | None = None) -> str:
    """SHA-256 of the whole file, hex; ``progress`` ticks in bytes."""
    digest, progress = hashlib.sha256(), progress or Progress()
    for block in blocks(file):
        digest.update(block)
        progress.tick(len(block))
    return digest.hexdigest()


def blocks(file: Path) -> Iterator[bytes]:
    """A file's content in blocks of ``BLOCK`` bytes."""
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
        replacement: returns a tensor's new value of the same shape (converted to the dtype in the
            file), or None to copy the old one.
        metadata: returns the new metadata; called with the SHA-256 of the new tensors' bytes.
        progress: ticks in bytes.

    Raises:
        ValueError: a new value has another shape, or is not finite in the dtype of the file.
    """
    header = read_header(source)

    def chunks() -> Iterator[bytes]:
        with source.open("rb") as stream:
            for name, entry in header.tensors.items():
                value = replacement(name)
                if value is None:
                    stream.seek(header.data_start + entry.start)
                    remaining = entry.end - entry.start
                    while remaining:
                        block = stream.read(min(BLOCK, remaining))
                        if not block:
                            raise OSError(f"{source.name!r} became shorter while it was read")
                        remaining -= len(block)
                        yield block
                else:
                    yield _to_bytes(name, value, entry)
                    del value  # frees its memory before the next one is computed

    write(destination, header.tensors, chunks, metadata, progress)


def write_tensors(
    destination: Path,
    tensors: Mapping[str, Tensor],
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
) -> None:
    """Write a new file; ``metadata`` is called with the SHA-256 of the tensors' bytes."""
    write_converted(destination, tensors, None, metadata, progress)


def write_converted(
    destination: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | Mapping[str, torch.dtype] | None,
    metadata: Callable[[str], Mapping[str, str]],
    progress: Progress | None = None,
    replacement: Callable[[str], Tensor | None] = lambda _: None,
) -> None:
    """Write a new file. Each tensor is converted just before it is written, so the peak of memory
    beyond ``tensors`` is one tensor.

    Args:
        dtype: of the floating-point tensors in the file, for all or by name; None keeps each
            tensor's own.
        metadata: called with the SHA-256 of the tensors' bytes.
        replacement: returns a tensor's new value of the same shape, or None to write the one in
            ``tensors``.

    Raises:
        ValueError: a replacement has another shape, or a value is not finite in its dtype.
    """
    entries, offset = {}, 0
    targets = dtype if isinstance(dtype, Mapping) else dict.fromkeys(tensors, dtype)
    dtypes = {name: _stored_dtype(tensor, targets[name]) for name, tensor in tensors.items()}
    # Widest dtypes first, the library's own order: then every tensor is aligned.
    for name in sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name)):
        shape = tuple(tensors[name].shape)
        size = math.prod(shape) * dtypes[name].itemsize
        entries[name] = Entry(CODES[dtypes[name]], shape, offset, offset + size)
        offset += size

    def content(name: str) -> bytes:
        value = replacement(name)
        return _to_bytes(name, tensors[name] if value is None else value, entries[name])

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
    """Write header and tensors. ``chunks`` runs twice: the header, which comes first in the file,
    contains the hash of the tensors' bytes."""
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
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    for name, entry in entries.items():
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with destination.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for chunk in chunks:
            stream.write(chunk)
            progress.tick(len(chunk))


def _to_bytes(name: str, value: Tensor, entry: Entry) -> bytes:
    if tuple(value.shape) != entry.shape:
        raise ValueError(
            f"tensor {name!r} has shape {list(entry.shape)} in the file, got {list(value.shape)}"
        )
    stored = value.to(DTYPES[entry.dtype])
    if fault := non_finite([(name, stored)]):
        if non_finite([(name, value)]):
            raise ValueError(
                f"the result holds {fault}, so it is not saved; go back to an earlier step, or "
                "lower learning_rate"
            )
        raise ValueError(
            f"tensor {name!r} is outside the range of {NAMES[entry.dtype]}, so it is not saved; "
            "load and save the model's fp32 or bf16 version, or lower learning_rate"
        )
    return raw_bytes(stored)


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor's bytes as the format stores them (little-endian, C-contiguous)."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
