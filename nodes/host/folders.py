"""ComfyUI's folders: models, prompts, pictures, CLIPs and the pack's cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...unlearn_core.foundation.atomic import MODEL_INDEX
from ...unlearn_core.foundation.checks import require
from ...unlearn_core.foundation.leftovers import clean_folder
from ...unlearn_core.foundation.own_folder import OwnFolder
from ...unlearn_core.judging.clip_scorer import is_scorer
from ...unlearn_core.judging.evaluators import carries_scorer
from ...unlearn_core.models.protocol import ModelHandle
from .plain_names import check_name, name_problem

PACK = Path(__file__).resolve().parents[2]
BUNDLED = {
    "EmojiCanvas (demo)": PACK / "demo" / "models" / "emoji-canvas",
    "EmojiCanvas-Flow (demo)": PACK / "demo" / "models" / "emoji-canvas-flow",
    "Digits (demo)": PACK / "demo" / "models" / "digits",
}
OWN_VAE = "the model's own"


def cache_folder() -> Path:
    """The cache of drawn pictures. It survives restarts, so that later runs can reuse them."""
    return Path(folder_paths.get_user_directory()) / "unlearn_cache"


def states_folder() -> Path:
    """The states of stopped runs. It survives restarts, so that a later run can continue them."""
    return Path(folder_paths.get_user_directory()) / "unlearn_runs"


def model_names() -> list[str]:
    """The bundled models, the safetensors files of ``models/checkpoints``, and all diffusers
    folders below ``models/diffusers``."""
    folders: set[str] = set()
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for folder, subfolders, files in os.walk(root, followlinks=True):
            if MODEL_INDEX in files:
                folders.add(Path(folder).relative_to(root).as_posix())
                subfolders.clear()  # parts of a model are not models themselves
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return [*BUNDLED, *_safetensors("checkpoints"), *sorted(folders)]


def model_path(name: str) -> Path:
    """The file or folder of a model in ``model_names``.

    Raises:
        ValueError: the name leads outside ComfyUI's folders, or there is no such model.
    """
    kinds = ("checkpoints", "diffusers")
    return BUNDLED[name] if name in list(BUNDLED) else _find("model", name, kinds)


def vae_names() -> list[str]:
    """``OWN_VAE``, then the safetensors files of ``models/vae``."""
    return [OWN_VAE, *_safetensors("vae")]


def vae_path(name: str) -> Path | None:
    """The file of a VAE in ``vae_names``; None for the model's own.

    Raises:
        ValueError: the name leads outside ``models/vae``, there is no such file, or it is not a
            safetensors file.
    """
    if name == OWN_VAE:
        return None
    path = _find("vae", name, ("vae",))
    if path.suffix != ".safetensors":
        raise ValueError(f"vae: {name!r} is not a safetensors file; choose another from the list")
    return path


def _safetensors(kind: str) -> list[str]:
    return [n for n in folder_paths.get_filename_list(kind) if n.endswith(".safetensors")]


def _find(field: str, name: str, kinds: Sequence[str]) -> Path:
    where = " or ".join(f"models/{kind}" for kind in kinds)
    require(isinstance(name, str), field, name, "a name from the list")
    windows = PureWindowsPath(name)  # understands both separators, drives and network shares
    if windows.anchor or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(
            f"{field}: {name!r} leads outside ComfyUI's {where} folder; choose one from the list"
        )
    for kind in kinds:
        for root in folder_paths.get_folder_paths(kind):
            if name.strip() and (path := Path(root, name)).exists():
                return path
    raise ValueError(
        f"{field}: {name!r} is not in ComfyUI's {where} folder; "
        "put it there and press R, or choose another from the list"
    )


AS_LOADED, CHECKPOINT, LORA, FOLDER = "as it was loaded", "checkpoint", "LoRA", "diffusers folder"
SAVE_AS = (AS_LOADED, CHECKPOINT, LORA, FOLDER)


def save_paths(name: str, save_as: str) -> dict[str, Path]:
    """The path of a new model by kind; the paths may exist already. ``AS_LOADED`` gives a path of
    each kind, because the kind then depends on the loaded model.

    Raises:
        ValueError: an unknown ``save_as``, or a name that some operating system forbids.
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
    return paths if save_as == AS_LOADED else {save_as: paths[save_as]}


def clean_model_folders() -> None:
    """Remove what killed saves have left in ComfyUI's model folders, see ``clean_folder``."""
    for kind in ("checkpoints", "loras", "diffusers"):
        clean_folder(Path(folder_paths.get_folder_paths(kind)[0]))


NO_FILE = "none"


def prompt_files() -> list[str]:
    """The ``.json`` files of ComfyUI's input folder."""
    folder = _input_folder()
    return _plain(file.name for file in folder.glob("*.json"))


def prompts_path(name: str) -> Path:
    """The file of that name in the input folder.

    Raises:
        ValueError: the name is not one of ``prompt_files``.
    """
    return _entry("prompts_file", name, prompt_files(), _input_folder(), "input")


def language_models() -> list[str]:
    """The folders of ``models/LLM`` that contain a model in transformers' layout."""
    return _plain(file.parent.name for file in _language_folder().glob("*/config.json"))


def language_model_path(name: str) -> Path:
    """The folder of that name in ``models/LLM``.

    Raises:
        ValueError: the name is not one of ``language_models``.
    """
    return _entry("language_model", name, language_models(), _language_folder(), "models/LLM")


OWN_SCORER = "the model's own"
PAPER_SCORER = "CLIP-ViT-B-32-laion2B-s34B-b79K"


def scorers_folder() -> Path:
    return Path(folder_paths.models_dir, "open_clip")


def scorers() -> list[str]:
    """``OWN_SCORER``, then the folders of ``models/open_clip`` that contain an open_clip model."""
    folder = scorers_folder()
    names = [f.name for f in folder.iterdir() if is_scorer(f)] if folder.is_dir() else []
    return [OWN_SCORER, *_plain(names)]


def scorer_path(name: str) -> Path | None:
    """The folder of a CLIP in ``scorers``; None for the model's own.

    Raises:
        ValueError: the name is not one of ``scorers``.
    """
    if name == OWN_SCORER:
        return None
    return _entry("scorer", name, scorers(), scorers_folder(), "models/open_clip")


def scorer_for(model: ModelHandle, name: str = OWN_SCORER) -> Path | None:
    """The folder of the CLIP for a model's pictures.

    ``OWN_SCORER`` falls back to the paper's CLIP if that is installed and the model has none.

    Returns:
        None for the model's own CLIP, or if there is no CLIP at all.

    Raises:
        ValueError: see ``scorer_path``.
    """
    if name == OWN_SCORER and not carries_scorer(model) and PAPER_SCORER in scorers():
        name = PAPER_SCORER
    return scorer_path(name)


def _language_folder() -> Path:
    return Path(folder_paths.models_dir, "LLM")


def _input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def _plain(names: Iterable[str]) -> list[str]:
    """The names, sorted, without hidden files and names that some operating system forbids."""
    return sorted(name for name in names if name_problem(name) is None)


def _entry(field: str, name: str, options: Sequence[str], folder: Path, where: str) -> Path:
    """The path of the entry ``name`` of ``folder``, if it is one of the options."""
    if name not in options:
        raise ValueError(
            f"{field}: {name!r} is not in ComfyUI's {where} folder; "
            "put it there and press R, or choose another from the list"
        )
    return folder / name


def picture_folders() -> list[str]:
    """The folders of ComfyUI's input folder."""
    return _plain(file.name for file in _input_folder().glob("*") if file.is_dir())


def pictures_path(name: str) -> Path:
    """The folder of that name in the input folder.

    Raises:
        ValueError: the name is not one of ``picture_folders``.
    """
    return _entry("folder", name, picture_folders(), _input_folder(), "input")


def save_prompts(name: str, text: str) -> Path:
    """Write a prompt set into the output folder; one that was written there before is replaced.

    Raises:
        ValueError: see ``check_name``.
        FileExistsError: the file of that name was not written by this pack, or has been changed.
    """
    check_name(name, "save_as")
    folder = OwnFolder(Path(folder_paths.get_output_directory(), "unlearn"))
    file = f"{name.removesuffix('.json')}.json"
    folder.write(file, text.encode(), "save_as")
    return folder.folder / file
