"""Save and restore a run's weights, and identify a run by its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..dataset.looks import twins_of
from ..dataset.own_pictures import OwnPictures
from ..dataset.settings import GenerationSettings
from ..foundation.atomic import appearing
from ..foundation.finite import non_finite
from ..foundation.json_file import parse_json
from ..foundation.safetensors_file import file_hash
from ..models.prompt_syntax import SYNTAX_VERSION, is_plain
from ..models.protocol import ModelHandle
from ..models.tensors import with_tensors
from ..prompts.pairs import PromptPairs
from ..unlearning.alarms import Alarm
from ..unlearning.methods import method_of
from ..unlearning.results import StepReport, UnlearnedModel
from ..unlearning.scopes import trainable
from ..unlearning.settings import MOST_PICTURE_PAIRS, NORMAL, TO_THE_END, UnlearnSettings

LARGEST = 200_000_000  # characters of the stored steps; 100,000 steps have about 30 million
FACTORS = ("down", "up")  # of a ``LoraLayer``
LATER_SETTINGS = {
    "uce_tokens": TO_THE_END,
    "diversified": True,
    "picture_pairs": MOST_PICTURE_PAIRS,
    "prompt_protection": 0.0,
    "effort": NORMAL,
    "harden": False,
}
"""Settings added in later versions, with the value that reproduces the earlier behaviour. At this
value they are not part of the identity, so that results of earlier versions stay valid."""


def run_identity(
    base: ModelHandle,
    pairs: PromptPairs,
    settings: UnlearnSettings,
    drawing: GenerationSettings,
    forget_pictures: OwnPictures | None,
    retain_pictures: OwnPictures | None,
) -> dict[str, Any]:
    """All inputs that determine the result of a run, as JSON, under the names of a settings file;
    equal for two runs with equal results. Test prompts are not part of it."""
    info = base.info
    earlier = {**LATER_SETTINGS, "picture_steps": drawing.steps}
    pictures = asdict(drawing)
    del pictures["batch_size"]  # a picture depends on its seed and not on the batch
    content = {
        "model": info.fingerprint,
        "loading": [info.prediction, info.mixed, info.image_size, info.vae],
        "concept": [asdict(part.concept) for part in pairs.each],
        "prompts": [_digest(json.dumps([asdict(p) for p in part.train])) for part in pairs.each],
        "unlearn": {
            name: value for name, value in asdict(settings).items() if earlier.get(name) != value
        },
        "generation": pictures,
        "forget_pictures": _pictures(forget_pictures),
        "retain_pictures": _pictures(retain_pictures),
    }
    prompts = [text for part in pairs.each for p in part.train for text in (p.forget, p.retain)]
    captions = [c for own in (forget_pictures, retain_pictures) if own for c in own.captions]
    if not all(map(is_plain, (*prompts, *captions))):
        content["encoding"] = SYNTAX_VERSION
    if info.clip_skip:
        content["clip_skip"] = info.clip_skip
    if not pairs.concept.has_word and forget_pictures and retain_pictures:
        content["twins"] = twins_of(forget_pictures, retain_pictures)  # by name, or all different
    return json.loads(json.dumps(content))


def difference(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first section in which two identities differ, and the values of its first different field
    in brackets (empty if they are no readable values); None if the identities are equal."""
    for section in {**expected, **stored}:  # an option that is off has no section
        before, now = stored.get(section), expected.get(section)
        if before != now:
            return section, _field(before, now)
    return None


def _field(stored: object, expected: object) -> str:
    if isinstance(stored, int) or isinstance(expected, int):
        return f" (was {stored or 0}, now {expected or 0})"
    if not isinstance(stored, dict) or not isinstance(expected, dict):
        return ""
    before, now = {**LATER_SETTINGS, **stored}, {**LATER_SETTINGS, **expected}
    for name in now:
        if before.get(name) != now[name]:
            return f" ({name} was {before.get(name)!r:.80}, now {now[name]!r:.80})"
    return ""


def _pictures(own: OwnPictures | None) -> list[object] | None:
    return None if own is None else [own.captions, own.alone, list(map(_picture, own.images))]


def _picture(picture: Tensor | Path) -> list[object]:
    if isinstance(picture, Path):
        return [hashlib.sha256(picture.read_bytes()).hexdigest()]
    pixels = picture.contiguous().numpy().tobytes()
    return [*picture.shape, hashlib.sha256(pixels).hexdigest()]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_unlearned(
    unlearned: UnlearnedModel,
    file: Path,
    description: Mapping[str, Any],
    outdated: Sequence[Path] = (),
) -> None:
    """Write the changed tensors and the steps' reports to one file, so that weights and their
    description always come from the same run.

    Args:
        description: further data to store, as JSON.
        outdated: files that describe the previous model, see ``remove_outdated``. They stay until
            the new one is on the disk.

    Raises:
        ValueError: a weight is not finite.
    """
    metadata = {
        "said": json.dumps(description),
        "steps": json.dumps([asdict(step) for step in unlearned.reports]),
        "alarms": json.dumps([asdict(alarm) for alarm in unlearned.alarms]),
        "outdated": json.dumps({f.name: file_hash(f) for f in outdated if f.is_file()}),
    }
    tensors = {name: tensor.contiguous() for name, tensor in state(unlearned.model).items()}
    if fault := non_finite(tensors.items()):
        raise ValueError(
            f"unlearned: the result holds {fault}, so it is not stored; lower learning_rate"
        )
    with appearing(file) as part:
        save_file(tensors, part, metadata)
    remove_outdated(file, outdated)


def remove_outdated(file: Path, others: Sequence[Path]) -> None:
    """Delete files that describe the model before the one in ``file``: a process that was killed
    between both steps of ``write_unlearned`` may have left them. A file with other content, or a
    later one with the same, stays.

    Raises:
        ValueError: ``file`` is not from ``write_unlearned``.
        OSError: a file is open on Windows, or the folder is not writable.
    """
    hashes, written = _metadata(file, "outdated", "{}"), file.stat().st_mtime_ns
    for other in others:
        digest = hashes.get(other.name) if isinstance(hashes, dict) else None
        if digest is None or not other.is_file() or other.stat().st_mtime_ns >= written:
            continue
        if file_hash(other) == digest:
            other.unlink()


def read_description(file: Path) -> dict[str, Any]:
    """Read the ``description`` from a file of ``write_unlearned``.

    Raises:
        ValueError: the file does not exist or is not from ``write_unlearned``.
    """
    description = _metadata(file, "said")
    if not isinstance(description, dict):
        raise ValueError(f"{file.name!r} contains no unlearned model")
    return description


def read_unlearned(
    file: Path, base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings
) -> UnlearnedModel:
    """Read the model from a file of ``write_unlearned``, given the inputs of its run.

    Raises:
        ValueError: the file does not exist or is not from ``write_unlearned``.
    """
    try:
        reports = tuple(StepReport(**step) for step in _metadata(file, "steps"))
        # Files of earlier versions have no alarms.
        alarms = tuple(Alarm(**alarm) for alarm in _metadata(file, "alarms", "[]"))
        model = _with_state(base, settings, load_file(file))
    except (TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{file.name!r} contains no unlearned model ({error})") from None
    return UnlearnedModel(model, base, pairs, settings, reports, alarms=alarms)


def read_steps(file: Path) -> list[Any] | None:
    """The reports in a file of ``write_unlearned``, as JSON; None if there is no such file."""
    try:
        return list(_metadata(file, "steps"))
    except (ValueError, TypeError):
        return None


def state(model: ModelHandle) -> Mapping[str, Tensor]:
    """The difference between an unlearned model and its base: the factors of its LoRA layers (the
    merged weights would be hundreds of times larger), or the changed tensors."""
    layers = model.lora_layers()
    if not layers:
        return model.changed_tensors()
    return {
        f"{name}.{factor}": getattr(layer, factor)
        for name, layer in layers.items()
        for factor in FACTORS
    }


def _with_state(
    base: ModelHandle, settings: UnlearnSettings, tensors: Mapping[str, Tensor]
) -> ModelHandle:
    if not method_of(settings).adds_layers(settings):
        return with_tensors(base, tensors)
    model, _ = trainable(base, settings)
    with torch.no_grad():
        for name, layer in model.lora_layers().items():
            for factor in FACTORS:
                getattr(layer, factor).copy_(tensors[f"{name}.{factor}"])
    for _, parameter in model.named_parameters():
        parameter.requires_grad_(False)
    return model


def _metadata(file: Path, key: str, missing: str = "") -> Any:
    try:
        with safe_open(file, "pt") as opened:
            return parse_json((opened.metadata() or {}).get(key, missing), LARGEST)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{file.name!r} contains no unlearned model ({error})") from None
