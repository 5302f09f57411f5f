"""Saves an unlearned model as a diffusers folder: the base's files, with the changed tensors
replaced. Everything else, dtype and metadata included, stays as it was."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..evaluation.evaluate import AlignmentReport
from ..evaluation.report import report_json
from ..unlearn import UnlearnedModel

KEPT = (".json", ".txt", ".safetensors", ".md", ".model")  # never a pickle, never code
REPORT_FILE = "unlearn_report.json"


def save_diffusers_folder(
    unlearned: UnlearnedModel,
    destination: str | Path,
    *,
    overwrite: bool = False,
    report: AlignmentReport | None = None,
) -> Path:
    """Write the model to ``destination``; either the whole folder appears there, or nothing.

    Raises:
        FileExistsError: ``destination`` exists and ``overwrite`` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination = Path(destination)
    if destination.exists() and not overwrite:
        raise FileExistsError(
            f"name: {destination.name!r} exists already, choose another name or switch overwrite on"
        )
    if destination.exists() and not (destination / "model_index.json").is_file():
        raise FileExistsError(
            f"name: {destination.name!r} exists and is no model, so it is not overwritten; "
            "choose another name"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A sibling folder: the move at the end must not cross file systems to be atomic.
    part = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        _write(unlearned, report, part)
        _make_readable(part)
        if destination.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
            destination.replace(old)
            part.replace(destination)
            shutil.rmtree(old)
        else:
            part.replace(destination)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors reports a full disk
        raise OSError(
            f"name: {destination.name!r} could not be saved ({error}); nothing was written, "
            "free some space or check the folder's permissions"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return destination


def _write(unlearned: UnlearnedModel, report: AlignmentReport | None, folder: Path) -> None:
    info = unlearned.base.info
    changed = unlearned.model.changed_tensors()
    for file in sorted(info.source.rglob("*")):
        relative = file.relative_to(info.source)
        if not file.is_file() or file.suffix not in KEPT or relative.name == REPORT_FILE:
            continue
        copy = folder / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        is_denoiser = relative.parent == Path(info.denoiser_folder)
        if is_denoiser and file.suffix == ".safetensors":
            replace_tensors(file, copy, changed)
        else:
            shutil.copyfile(file, copy)
    content: dict[str, Any] = report_json(unlearned, report, {})
    (folder / REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def replace_tensors(source: Path, destination: Path, changed: dict[str, Tensor]) -> None:
    """Copy a safetensors file with the named tensors replaced, in the file's own dtype."""
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in tensors.keys() & changed.keys():
        tensors[name] = changed[name].to("cpu", tensors[name].dtype).contiguous()
    save_file(tensors, destination, metadata=metadata)


def _make_readable(folder: Path) -> None:
    """mkdtemp and safetensors write for their owner alone, which would hide the model from the
    other users of a shared server."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
