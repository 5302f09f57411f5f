"""Where models and cached pictures lie on this ComfyUI's disk."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

PACK = Path(__file__).resolve().parent.parent
BUNDLED = {
    "EmojiCanvas (demo)": PACK / "demo" / "models" / "emoji-canvas",
    "Digits (demo)": PACK / "demo" / "models" / "digits",
}
MODEL_INDEX = "model_index.json"

RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
RESERVED_NAMES = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10)]
)
LONGEST_NAME = 200  # bytes; file systems allow 255, and saving puts a few before and behind


def cache_folder() -> Path:
    """Kept over restarts, so that a second run need not draw its pictures again."""
    return Path(folder_paths.get_user_directory()) / "unlearn_cache"


def model_names() -> list[str]:
    """The bundled models, then every diffusers folder below ComfyUI's ``models/diffusers``."""
    found: set[str] = set()
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for folder, below, files in os.walk(root, followlinks=True):
            if MODEL_INDEX in files:
                found.add(Path(folder).relative_to(root).as_posix())
                below.clear()  # a model's own parts are no models
            below[:] = [name for name in below if not name.startswith(".")]
    return [*BUNDLED, *sorted(found)]


def model_folder(name: str) -> Path:
    """The folder that a name of ``model_names`` stands for.

    Raises:
        ValueError: for a name that leads outside ``models/diffusers``, or to nothing.
    """
    if name in BUNDLED:
        return BUNDLED[name]
    windows = PureWindowsPath(name)  # understands both separators, drives and network shares
    if windows.anchor or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(
            f"model: {name!r} leads outside ComfyUI's models/diffusers folder, "
            "choose a model from the list"
        )
    for root in folder_paths.get_folder_paths("diffusers"):
        if name.strip() and (folder := Path(root, name)).exists():
            return folder
    raise ValueError(
        f"model: {name!r} is not in ComfyUI's models/diffusers folder, "
        "put it there and press R, or choose another model from the list"
    )


def save_folder(name: str) -> Path:
    """The folder of that name, existing or not, in ComfyUI's first ``models/diffusers``.

    Raises:
        ValueError: for anything but one plain folder name that every operating system allows.
    """
    cure = "type a plain name such as 'my-model-without-ink'"
    if not name.strip():
        raise ValueError(f"name must not be empty, got {name!r}: {cure}")
    if name.strip() in (".", ".."):
        raise ValueError(f"name must not be {name!r}, which is a folder of its own: {cure}")
    bad = [c for c in name if c in RESERVED_CHARACTERS or not c.isprintable()]
    if bad:
        raise ValueError(f"name must not contain {bad[0]!r}, got {name!r}: {cure}")
    if name != name.strip() or name[0] in ".~" or name[-1] == ".":
        raise ValueError(
            f"name must not begin with a dot, ~ or space nor end with a dot or space, "
            f"got {name!r}: {cure}"
        )
    if name.split(".")[0].strip().upper() in RESERVED_NAMES:
        raise ValueError(f"name must not be {name!r}, which Windows keeps for itself: {cure}")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"name must be shorter, got {len(name)} characters: {cure}")
    return Path(folder_paths.get_folder_paths("diffusers")[0], name)
