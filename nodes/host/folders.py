"""Where models and cached pictures lie on this ComfyUI's disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...unlearn_core.foundation.atomic import MODEL_INDEX, appearing
from ...unlearn_core.judging.clip_scorer import is_scorer
from ...unlearn_core.judging.evaluators import carries_scorer
from ...unlearn_core.models.protocol import ModelHandle
from .plain_names import check_name, what_is_wrong

PACK = Path(__file__).resolve().parents[2]
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


NO_FILE = "none"


def prompt_files() -> list[str]:
    """The ``.json`` files of ComfyUI's input folder."""
    folder = _input_folder()
    return _plain(file.name for file in folder.glob("*.json"))


def prompts_path(name: str) -> Path:
    """The file of the input folder that has that name.

    Raises:
        ValueError: anything but the plain name of a file that is there.
    """
    return _chosen("prompts_file", name, prompt_files(), _input_folder(), "input")


def language_models() -> list[str]:
    """The folders of ``models/LLM`` that hold a model in transformers' layout."""
    return _plain(file.parent.name for file in _language_folder().glob("*/config.json"))


def language_model_path(name: str) -> Path:
    """The folder of ``models/LLM`` that has that name.

    Raises:
        ValueError: anything but the plain name of a model that is there.
    """
    return _chosen("language_model", name, language_models(), _language_folder(), "models/LLM")


OWN_SCORER = "the model's own"
PAPER_SCORER = "CLIP-ViT-B-32-laion2B-s34B-b79K"


def scorers_folder() -> Path:
    return Path(folder_paths.models_dir, "open_clip")


def scorers() -> list[str]:
    """``OWN_SCORER``, then the folders of ``models/open_clip`` that hold an open_clip model."""
    folder = scorers_folder()
    found = [f.name for f in folder.iterdir() if is_scorer(f)] if folder.is_dir() else []
    return [OWN_SCORER, *_plain(found)]


def scorer_path(name: str) -> Path | None:
    """The folder that a name of ``scorers`` stands for; None for the model's own.

    Raises:
        ValueError: anything but the plain name of a folder that is there.
    """
    if name == OWN_SCORER:
        return None
    return _chosen("scorer", name, scorers(), scorers_folder(), "models/open_clip")


def scorer_for(model: ModelHandle, chosen: str = OWN_SCORER) -> Path | None:
    """The folder of the CLIP for a model's pictures: the one chosen; else the paper's, where it has
    been fetched and the model brings none along. None for the model's own, or for none at all.

    Raises:
        ValueError: see ``scorer_path``.
    """
    if chosen == OWN_SCORER and not carries_scorer(model) and PAPER_SCORER in scorers():
        chosen = PAPER_SCORER
    return scorer_path(chosen)


def _language_folder() -> Path:
    return Path(folder_paths.models_dir, "LLM")


def _input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def _plain(names: Iterable[str]) -> list[str]:
    """Those that a person may choose, in order: not what is hidden, nor what another system could
    not hold."""
    return sorted(name for name in names if what_is_wrong(name) is None)


def _chosen(field: str, name: str, offered: Sequence[str], folder: Path, where: str) -> Path:
    """The entry of ``folder`` that has that name and is among those offered."""
    if name not in offered:
        raise ValueError(
            f"{field}: {name!r} is not in ComfyUI's {where} folder, "
            "put it there and press R, or choose another from the list"
        )
    return folder / name


def picture_folders() -> list[str]:
    """The folders of ComfyUI's input folder."""
    return _plain(file.name for file in _input_folder().glob("*") if file.is_dir())


def pictures_path(name: str) -> Path:
    """The folder of the input folder that has that name.

    Raises:
        ValueError: anything but the plain name of a folder that is there.
    """
    return _chosen("folder", name, picture_folders(), _input_folder(), "input")


def save_prompts(name: str, text: str) -> Path:
    """Write a prompt set into the output folder, in place of one of that name.

    Raises:
        ValueError: anything but a plain name.
    """
    check_name(name, "save_as")
    folder = Path(folder_paths.get_output_directory(), "unlearn")
    path = folder / f"{name.removesuffix('.json')}.json"
    with appearing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
