"""A file or folder appears whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

MODEL_INDEX = "model_index.json"


def refuse_existing(destination: Path, source: Path, *, overwrite: bool) -> None:
    """Raise for a name that may not be written, before any work is done.

    Raises:
        FileExistsError: it is taken and ``overwrite`` is false, it is the model itself, or a folder
            of something else.
    """
    if destination.exists() and not overwrite:
        raise FileExistsError(
            f"name: {destination.name!r} exists already, choose another name or allow overwriting"
        )
    if destination.is_dir() and not (destination / MODEL_INDEX).is_file():
        raise FileExistsError(
            f"name: {destination.name!r} exists and is no model, so it is not overwritten; "
            "choose another name"
        )
    if destination.exists() and destination.samefile(source):
        raise FileExistsError(
            f"name: {destination.name!r} is the model that you started from, which is never "
            "overwritten; choose another name"
        )


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """A path beside ``destination`` to write a file or folder at: it moves there at the end, in one
    step, and replaces what was there; after an error it is gone. Its name is no model's, for
    programs list what lies among their models, also while it is being written.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A sibling: the move at the end must not cross file systems to be atomic.
    room = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    old = room / "old"
    try:
        part = room / f"{destination.name}.part"
        yield part
        _make_readable(part)
        if destination.is_dir():
            _swap(part, destination, old)
        else:
            part.replace(destination)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors reports a full disk
        left = f"what was there lies in {str(old)!r}" if old.exists() else "nothing was written"
        raise OSError(
            f"name: {destination.name!r} could not be saved ({error}); {left}, "
            "free some space or check the folder's permissions"
        ) from error
    finally:
        if destination.exists() or not old.exists():  # never the only copy
            shutil.rmtree(room, ignore_errors=True)


def _swap(part: Path, destination: Path, old: Path) -> None:
    """A folder with entries cannot be replaced in one step: the old one steps aside, and back if
    the new one cannot take its place."""
    try:
        destination.replace(old)
        part.replace(destination)
    except BaseException:
        if old.exists() and not destination.exists():
            old.replace(destination)
        raise


def _make_readable(part: Path) -> None:
    """mkdtemp and safetensors write for their owner alone, which would hide the model from the
    other users of a shared server."""
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
