"""Where models and cached pictures lie on this ComfyUI's disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ..unlearn_core.checkpoints.atomic import MODEL_INDEX
from .plain_names import check_name

PACK = Path(__file__).resolve().parent.parent
BUNDLED = {
    "EmojiCanvas (demo)": PACK / "demo" / "models" / "emoji-canvas",
    "Digits (demo)": PACK / "demo" / "models" / "digits",
}
OWN_VAE = "the model's own"


def cache_folder() -> Path:
    """Kept over restarts, so that a second run need not draw its pictures again."""
    return Path(folder_paths.get_user_directory()) / "unlearn_cache"


def model_names() -> list[str]:
    """The bundled models, the checkpoints of ``models/checkpoints`` that are no pickles, and every
    diffusers folder below ``models/diffusers``."""
    found: set[str] = set()
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for folder, below, files in os.walk(root, followlinks=True):
            if MODEL_INDEX in files:
                found.add(Path(folder).relative_to(root).as_posix())
                below.clear()  # a model's own parts are no models
            below[:] = [name for name in below if not name.startswith(".")]
    return [*BUNDLED, *_safetensors("checkpoints"), *sorted(found)]


def model_path(name: str) -> Path:
    """The file or folder that a name of ``model_names`` stands for.

    Raises:
        ValueError: for a name that leads outside ComfyUI's folders, or to nothing.
    """
    return BUNDLED[name] if name in BUNDLED else _find("model", name, ("checkpoints", "diffusers"))


def vae_names() -> list[str]:
    """``OWN_VAE``, then the files of ``models/vae`` that are no pickles."""
    return [OWN_VAE, *_safetensors("vae")]


def vae_path(name: str) -> Path | None:
    """The file that a name of ``vae_names`` stands for; None for the model's own.

    Raises:
        ValueError: for a name that leads outside ``models/vae``, or to nothing, or a pickle.
    """
    if name == OWN_VAE:
        return None
    path = _find("vae", name, ("vae",))
    if path.suffix != ".safetensors":
        raise ValueError(f"vae: {name!r} is no safetensors file, choose another from the list")
    return path


def _safetensors(kind: str) -> list[str]:
    return [n for n in folder_paths.get_filename_list(kind) if n.endswith(".safetensors")]


def _find(field: str, name: str, kinds: Sequence[str]) -> Path:
    where = " or ".join(f"models/{kind}" for kind in kinds)
    windows = PureWindowsPath(name)  # understands both separators, drives and network shares
    if windows.anchor or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(
            f"{field}: {name!r} leads outside ComfyUI's {where} folder, choose one from the list"
        )
    for kind in kinds:
        for root in folder_paths.get_folder_paths(kind):
            if name.strip() and (path := Path(root, name)).exists():
                return path
    raise ValueError(
        f"{field}: {name!r} is not in ComfyUI's {where} folder, "
        "put it there and press R, or choose another from the list"
    )


AS_LOADED, CHECKPOINT, LORA, FOLDER = "as it was loaded", "checkpoint", "LoRA", "diffusers folder"
SAVE_AS = (AS_LOADED, CHECKPOINT, LORA, FOLDER)


def save_paths(name: str, save_as: str) -> dict[str, Path]:
    """Where a model of that name would be saved, existing or not, by the kind of file: for
    ``AS_LOADED`` a checkpoint or a folder, since that is known only when the model is.

    Raises:
        ValueError: an unknown ``save_as``, or anything but one plain name that every operating
            system allows.
    """
    if save_as not in SAVE_AS:
        raise ValueError(f"save_as must be one of {', '.join(SAVE_AS)}, got {save_as!r}")
    check_name(name)
    file = f"{name}.safetensors"
    paths = {
        CHECKPOINT: Path(folder_paths.get_folder_paths("checkpoints")[0], file),
        LORA: Path(folder_paths.get_folder_paths("loras")[0], file),
        FOLDER: Path(folder_paths.get_folder_paths("diffusers")[0], name),
    }
    wanted = (CHECKPOINT, FOLDER) if save_as == AS_LOADED else (save_as,)
    return {kind: paths[kind] for kind in wanted}
