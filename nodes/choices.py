"""What inputs offer of ComfyUI's folders beside models: prompt files, folders of pictures, language
models, CLIPs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import folder_paths

from ..unlearn_core.checkpoints.atomic import appearing
from ..unlearn_core.evaluation.alignment import is_scorer
from ..unlearn_core.evaluation.evaluators import carries_scorer
from ..unlearn_core.models.protocol import ModelHandle
from .plain_names import check_name, what_is_wrong

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
