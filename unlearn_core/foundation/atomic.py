"""Atomic writes: a file or folder appears complete, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

MODEL_INDEX = "model_index.json"


def refuse_existing(destination: Path, source: Path | None, *, overwrite: bool) -> None:
    """Check that ``destination`` may be written, before any work is done.

    Raises:
        FileExistsError: it exists and ``overwrite`` is false, it is the source model itself, or it
            is a folder that holds something other than a model.
    """
    if destination.exists() and not overwrite:
        raise FileExistsError(
            f"name: {destination.name!r} exists already, choose another name or allow overwriting"
        )
    if destination.is_dir() and not (destination / MODEL_INDEX).is_file():
        raise FileExistsError(
            f"name: {destination.name!r} exists and is not a model, so it is not overwritten; "
            "choose another name"
        )
    if source is not None and destination.exists() and destination.samefile(source):
        raise FileExistsError(
            f"name: {destination.name!r} is the original model, which is never overwritten; "
            "choose another name"
        )


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``destination`` to write a file or folder to.

    On success it moves to ``destination`` in one step and replaces what was there; on an error it
    is deleted. Other programs may list this folder during the write, so the temporary name does not
    look like the name of a model.

    Raises:
        OSError: the disk is full or not writable; no temporary file is left behind.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A sibling: a move is atomic only within one file system.
    folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    old = folder / "old"
    try:
        temporary = folder / f"{destination.name}.part"
        yield temporary
        _make_readable(temporary)
        if destination.is_dir():
            _swap(temporary, destination, old)
        else:
            temporary.replace(destination)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by the latter
        state = (
            f"the previous version is in {str(old)!r}" if old.exists() else "nothing was written"
        )
        raise OSError(
            f"name: {destination.name!r} could not be saved ({error}); {state}; "
            "free some disk space or check the folder's permissions"
        ) from error
    finally:
        if destination.exists() or not old.exists():  # never delete the only copy
            shutil.rmtree(folder, ignore_errors=True)


def _swap(temporary: Path, destination: Path, old: Path) -> None:
    """Replace a folder. A folder with entries cannot be replaced in one step, so the old one is
    moved aside first, and back if the new one cannot be moved in."""
    try:
        destination.replace(old)
        temporary.replace(destination)
    except BaseException:
        if old.exists() and not destination.exists():
            old.replace(destination)
        raise


def _make_readable(temporary: Path) -> None:
    """Let everyone read the result: mkdtemp and safetensors give access to the owner alone, which
    would hide the model from the other users of a shared server."""
    for path in (temporary, *temporary.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
