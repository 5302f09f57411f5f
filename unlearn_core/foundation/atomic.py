"""Durable and atomic writes: a file or folder appears complete, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .disk_errors import cure
from .durable import create_folder, sync_folder, sync_tree
from .leftovers import Workspace, clean_leftovers
from .own_files import MANIFEST, changed_file, entries, is_own, read_manifest, write_manifest

MODEL_INDEX = "model_index.json"
ATTEMPTS, PAUSE = 5, 0.1  # a virus scanner on Windows opens a new file for a moment; s


def refuse_existing(destination: Path, source: Path | None, *, overwrite: bool) -> None:
    """Check that ``destination`` may be written, before any work is done.

    Raises:
        FileExistsError: it exists and ``overwrite`` is false; or it is the source model itself, was
            not written by this pack, or has been changed since.
        BlockingIOError: another process is saving there.
    """
    clean_leftovers(destination)
    if not os.path.lexists(destination):
        return
    if not overwrite:
        raise FileExistsError(
            f"name: {destination.name!r} exists already, choose another name or allow overwriting"
        )
    if source is not None and destination.exists() and destination.samefile(source):
        raise FileExistsError(
            f"name: {destination.name!r} is the original model, which is never overwritten; "
            "choose another name"
        )
    if not is_own(destination):
        raise FileExistsError(
            f"name: {destination.name!r} exists and was not saved by Unlearn, so it is never "
            "overwritten; choose another name, or move it away yourself"
        )
    changed = changed_file(destination) if destination.is_dir() else None
    if changed is not None:
        raise FileExistsError(
            f"name: {changed!r} in {destination.name!r} has been changed since it was saved, so it "
            "is not overwritten; choose another name, or move the file away"
        )


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``destination`` to write a file or folder to.

    On success it is flushed to the disk and moved to ``destination``, where it replaces what this
    pack wrote before; other files in a folder stay. On an error it is deleted. At the end the
    result survives a power failure; until then, the previous version does.

    Raises:
        OSError: the disk is full or not writable; no temporary file is left behind.
        FileExistsError: the new version of a folder contains a file that the user added to the
            previous one.
    """
    workspace: Workspace | None = None
    try:
        create_folder(destination.parent)
        clean_leftovers(destination)
        workspace = Workspace(destination)
        yield workspace.part
        if workspace.part.is_dir():
            write_manifest(workspace.part)
        _make_readable(workspace.part)
        sync_tree(workspace.part)
        if destination.is_dir():
            _swap(workspace)
        else:
            _move(workspace.part, destination)
            sync_folder(destination.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by the latter
        if isinstance(error, (FileExistsError, BlockingIOError)) and error.errno is None:
            raise  # a refusal of this module
        state = "nothing was written"
        if workspace is not None and not destination.exists() and workspace.old.exists():
            state = f"the previous version is in {str(workspace.old)!r}"
        raise OSError(
            f"name: {destination.name!r} could not be saved ({error}); {state}; "
            f"{cure(error, destination.parent)}"
        ) from error
    finally:
        if workspace is not None:
            workspace.remove()


def _swap(workspace: Workspace) -> None:
    """Replace a folder. A folder with entries cannot be replaced in one step, so the old one is
    moved aside first, and back if the new one cannot be moved in. Each step is on the disk before
    the next one begins, so that a power failure leaves one of them whole: ``clean_leftovers``
    restores the old one, which is deleted only when the new one is in place."""
    destination, parent = workspace.destination, workspace.destination.parent
    _refuse_conflicts(workspace.part, destination)
    sync_folder(workspace.folder)
    sync_folder(parent)
    try:
        _move(destination, workspace.old)
        sync_folder(workspace.folder)
        sync_folder(parent)
        _move(workspace.part, destination)
        sync_folder(parent)
    except BaseException:
        if os.path.lexists(workspace.old) and not os.path.lexists(destination):
            os.replace(workspace.old, destination)
            sync_folder(parent)
        raise


def _refuse_conflicts(new: Path, previous: Path) -> None:
    manifest = read_manifest(previous)
    if manifest is None:  # an earlier version wrote it, at the same paths
        return
    conflicts = set(entries(previous)).difference(manifest, [MANIFEST]).intersection(entries(new))
    if conflicts:
        raise FileExistsError(
            f"name: {previous.name!r} contains {min(conflicts)!r}, which was not saved by Unlearn, "
            "so it is not overwritten; move this file away, or choose another name"
        )


def _move(source: Path, destination: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            os.replace(source, destination)
            return
        except PermissionError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE)


def _make_readable(temporary: Path) -> None:
    """Let everyone read the result: mkdtemp and safetensors give access to the owner alone, which
    would hide the model from the other users of a shared server."""
    for path in (temporary, *temporary.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
