"""Save an unlearned model as one file: the original with the changed tensors replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..foundation.atomic import appearing, refuse_existing
from ..foundation.progress import Progress
from ..foundation.safetensors_file import DTYPES, copy_replacing
from ..models.rounding import rounded
from ..models.single_file import ldm_names, read_checkpoint, unet_config
from ..unlearning.results import UnlearnedModel
from .metadata import checkpoint_metadata
from .source import require_source

# LDM's trainer stores a moving average of the weights under their names without dots.
EMA = "model_ema."


def save_single_file(
    unlearned: UnlearnedModel,
    destination: str | Path,
    *,
    overwrite: bool = False,
    report: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a copy of the original checkpoint with the same keys, dtypes and metadata, in which the
    tensors changed by unlearning are replaced, rounded as in ``models/rounding.py``. Peak
    memory beyond the models: one tensor.

    A moving average (EMA) of a changed tensor gets the new value too; otherwise a program that
    prefers the average would bring back the concept.

    Args:
        report: of its evaluation, from ``report_json``.
        metadata: additional entries, such as ComfyUI's workflow.
        progress: ticks in bytes.

    Raises:
        ValueError: the model was not loaded from a single file.
        FileNotFoundError: the model that was loaded is no longer there.
        FileExistsError: ``destination`` exists and ``overwrite`` is false.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    destination, source = Path(destination), unlearned.base.info.source
    if source is not None:
        require_source(source)
    if source is None or not source.is_file():
        raise ValueError(
            f"save_as: {unlearned.base.info.name!r} was not loaded from one file; choose another "
            "format"
        )
    refuse_existing(destination, source, overwrite=overwrite)
    header, family = read_checkpoint(source)
    names = {key: name for name, key in ldm_names(header, unet_config(header, family)).items()}
    averages = {EMA + key.removeprefix("model.").replace(".", ""): key for key in names}
    changed = unlearned.model.changed_tensors()

    def replacement(key: str) -> Tensor | None:
        name = names.get(averages.get(key, key))
        if name is None or name not in changed:
            return None
        return rounded(name, changed[name], DTYPES[header.tensors[key].dtype])

    new = checkpoint_metadata(unlearned, report, destination.stem, header.metadata, metadata or {})
    with appearing(destination) as part:
        copy_replacing(source, part, replacement, new, progress)
    return destination
