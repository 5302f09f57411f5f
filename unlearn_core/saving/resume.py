"""The file from which a stopped run continues: a ``Snapshot`` and the identity of its run.

It is a safetensors file with JSON metadata. A checksum covers all of it, because a damaged state
could otherwise be continued without any sign of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..foundation.atomic import appearing
from ..foundation.json_file import parse_json
from ..foundation.safetensors_file import Entry, raw_bytes, write
from ..unlearning.snapshot import PART, Snapshot
from .run_state import difference

FORMAT = 1
LARGEST = 100_000_000  # characters of the metadata, which the library limits as well
CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
CONTENT, CHECKSUM = "unlearn_run", "sha256"  # keys of the metadata
BEGINNING = f'{{"__metadata__":{{"{CONTENT}"'.encode()  # of the header
Kind = TypeVar("Kind")


class OtherRunError(ValueError):
    """The file contains the state of a run with other inputs."""


def write_state(file: Path, snapshot: Snapshot, identity: Mapping[str, Any]) -> None:
    """Write a state; the file appears complete, or not at all.

    Args:
        identity: of the run, see ``run_identity``.

    Raises:
        OSError: the disk is full or not writable; the previous state is still there.
    """
    entries, offset = {}, 0
    for name, tensor in _ordered(snapshot.tensors).items():
        end = offset + tensor.nbytes
        entries[name] = Entry(CODES[tensor.dtype], tuple(tensor.shape), offset, end)
        offset = end
    content = json.dumps({"format": FORMAT, "identity": identity, **snapshot.values})

    def metadata(digest: str) -> dict[str, str]:
        return {CONTENT: content, CHECKSUM: _checksum(snapshot.tensors, digest, content)}

    with appearing(file) as part:
        write(part, entries, lambda: _chunks(snapshot.tensors), metadata)


def read_state(file: Path, identity: Mapping[str, Any]) -> Snapshot:
    """Read the state of the run with this identity. Its tensors are mapped from the file, which
    some systems cannot replace before they are freed.

    Raises:
        OtherRunError: it belongs to another run; names the section and field that differ.
        ValueError: the file is damaged or not a state.
    """
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        text = metadata[CONTENT]
        content = parse_json(text, LARGEST)
        values = dict(content)
        stored, version = values.pop("identity"), values.pop("format")
        tensors = load_file(file)
    except KeyError:
        raise ValueError(f"{file.name!r} is not the state of a run") from None
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{file.name!r} is damaged ({error})") from None
    if version != FORMAT or not isinstance(stored, dict):
        raise ValueError(f"{file.name!r} is from another version of this program")
    different = difference(stored, identity)
    if different is not None:
        raise OtherRunError(
            f"{file.name!r} belongs to a run with other inputs: {''.join(different)}"
        )
    if metadata.get(CHECKSUM) != _checksum(tensors, _digest(tensors), text):
        raise ValueError(f"{file.name!r} is damaged (its checksum is wrong)")
    return Snapshot(tensors, values)


def is_state(file: Path) -> bool:
    """Whether a file is from ``write_state``, even if it is damaged; also true for an empty one."""
    with file.open("rb") as stream:
        start = stream.read(8 + len(BEGINNING))
    return not start or start[8:] == BEGINNING


def stored_steps(file: Path) -> list[Any] | None:
    """The reports of the steps in a state, without a check of the rest of the file; None if there
    is no readable state."""
    return _stored(file, "reports", list)


def stored_identity(file: Path) -> dict[str, Any] | None:
    """The identity of a state's run; None if there is no readable state."""
    return _stored(file, "identity", dict)


def _stored(file: Path, name: str, kind: Callable[[Any], Kind]) -> Kind | None:
    try:
        with safe_open(file, "pt") as opened:
            return kind(parse_json((opened.metadata() or {})[CONTENT], LARGEST)[name])
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None


def _ordered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The widest dtypes first, so that every tensor in the file is aligned."""
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """The bytes of all tensors, with little additional memory."""
    for tensor in _ordered(tensors).values():
        yield from map(raw_bytes, tensor.detach().reshape(-1).split(PART))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(tensors):
        digest.update(chunk)
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor], digest: str, content: str) -> str:
    """Of everything in the file; ``digest`` is that of the tensors' bytes."""
    header = [(name, str(t.dtype), list(t.shape)) for name, t in _ordered(tensors).items()]
    return hashlib.sha256(f"{header}\n{digest}\n{content}".encode()).hexdigest()
