"""Check a diffusers folder before any library opens it: its links, its sizes, its settings.

The libraries trust a folder. They follow its links, take names in its settings for those of models
on a hub, and build modules as large as the settings say.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..foundation.json_file import JsonError, read_json, read_object
from ..foundation.safetensors_file import read_header
from .errors import ModelError

MOST_FILES = 10_000
LARGEST_SETTINGS = 1_000_000  # bytes; those of published models have a few thousand
LARGEST_VOCABULARY = 100_000_000  # bytes of a tokenizer's file
SETTINGS = ("config.json", "_config.json", "_index.json", "generation_config.json")
FOREIGN = {
    "auto_map": "code of its own, which is never run",
    "base_model_name_or_path": "an adapter of another model",
    "quantization_config": "quantised weights, which cannot be trained",
}
"""Settings that make the libraries load something else, and what they mean."""
KERNELS = ("attn_implementation", "_attn_implementation")
"""Settings that may name code on a hub, as ``owner/name``."""
MOST_LAYERS = 1000
LIMITS = {"sample_size": 1024, "pos_embed_max_size": 512}
"""Settings that cost time or memory before any weight is read, and their limits."""
SLACK = 1.5, 1_000_000
"""How much larger than its weights a module may be: not every file contains tied weights."""


def check_folder(folder: Path) -> None:
    """Check every link and every settings file of a folder. Reads no weights.

    Raises:
        ModelError: names the file, the problem and the cure.
    """
    for i, path in enumerate(_paths(folder)):
        relative = path.relative_to(folder)
        name = f"model: {folder.name}/{relative.as_posix()}"
        if i == MOST_FILES:
            raise ModelError(
                f"model: {folder.name!r} contains more than {MOST_FILES} files, so it is not one "
                "model; choose the folder with its model_index.json"
            )
        if path.is_symlink() and not _stays_inside(path, folder):
            raise ModelError(
                f"{name} is a link to a place outside the model's folder, which is not followed; "
                "put a copy of the file there"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{name} is not a regular file; remove it")
        hidden = any(part.startswith(".") for part in relative.parts)  # such as a hub's cache
        if path.suffix == ".json" and path.is_file() and path.parent != folder and not hidden:
            _check_json(path, name)


def _paths(folder: Path) -> Iterator[Path]:
    """All files and folders below; links to folders are not entered."""
    for parent, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            yield Path(parent, name)


def _stays_inside(link: Path, folder: Path) -> bool:
    """Whether a link leads into the model's folder, or into the blobs of a download by
    huggingface_hub, whose snapshots consist of links."""
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parent.parent / "blobs")
    try:
        target = link.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    return any(target.is_relative_to(root) for root in roots)


def _check_json(file: Path, name: str) -> None:
    is_settings = file.name.endswith(SETTINGS)
    try:
        if not is_settings:
            read_json(file, LARGEST_VOCABULARY)
            return
        content = read_object(file, LARGEST_SETTINGS)
    except JsonError as error:
        raise ModelError(f"{name} {error}; download it again") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be loaded: {error}") from None
    for setting, meaning in FOREIGN.items():
        if content.get(setting):
            raise ModelError(f"{name} contains {setting!r}: {meaning}; choose another model")
    for setting in KERNELS:
        if "/" in str(content.get(setting)):
            raise ModelError(
                f"{name} names code on a hub, which is never run ({setting}: "
                f"{content[setting]!r:.80}); choose another model"
            )
    _check_numbers(content, name)


def _check_numbers(content: Mapping[str, Any], name: str) -> None:
    for setting, value in content.items():
        most = MOST_LAYERS if "layers" in setting else LIMITS.get(setting)
        numbers = value if isinstance(value, list) else [value]
        if most is None:
            continue
        if len(numbers) > MOST_LAYERS or any(
            isinstance(number, (int, float)) and not -most <= number <= most for number in numbers
        ):
            raise ModelError(f"{name}: {setting} must be {most} or less, got {value!r:.80}")


def check_size(loader: Any, folder: Path, name: str) -> None:
    """Require that a component's settings describe a module as large as its weights: the libraries
    would otherwise fill the memory before they compare the two. Needs no memory itself.

    Args:
        loader: a model class of diffusers or transformers.

    Raises:
        ModelError: the settings are not valid, or describe a larger module.
    """
    component = folder / name
    config = component / "config.json"
    stored = sum(
        math.prod(entry.shape)
        for file in component.glob("*.safetensors")
        for entry in read_header(file).tensors.values()
    )
    if not config.is_file() or not stored:
        return  # the libraries report what is missing
    try:
        with torch.device("meta"):
            module = _build(loader, component)
    except TypeError as error:  # a list in place of a number
        raise ModelError(
            f"model: {folder.name}/{name}/config.json has a setting of another type than the model "
            f"expects ({error}); download it again, or choose another model"
        ) from error
    described = sum(parameter.numel() for parameter in module.parameters())
    if described > SLACK[0] * stored + SLACK[1]:
        raise ModelError(
            f"model: {folder.name}/{name}/config.json describes {described:,} numbers, but its "
            f"files contain {stored:,}; download it again"
        )


def _build(loader: Any, component: Path) -> nn.Module:
    if hasattr(loader, "config_class") and loader.config_class is not None:  # transformers
        return loader(loader.config_class.from_pretrained(component, local_files_only=True))
    return loader.from_config(read_object(component / "config.json", LARGEST_SETTINGS))


def edge_of(value: object, name: str) -> int:
    """The edge of a square picture or latent, from a setting that is one number or a pair.

    Args:
        name: of the setting, for the message.

    Raises:
        ModelError: not a number, or two different ones.
    """
    edges = value if isinstance(value, (list, tuple)) else [value]
    edge = edges[0] if edges else None
    if any(other != edge for other in edges) or len(edges) > 2:
        raise ModelError(
            f"model: {name} must be square, got {value!r}; choose a model with square pictures"
        )
    if (
        not isinstance(edge, (int, float))
        or isinstance(edge, bool)
        or edge != int(edge)
        or edge < 1
    ):
        raise ModelError(f"model: {name} must be a whole number, got {value!r:.80}")
    return int(edge)
