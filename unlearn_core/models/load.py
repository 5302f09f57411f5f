"""Load a model from a diffusers folder or from a checkpoint in one safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch

from ..foundation.progress import Progress
from . import folder as diffusers_folder
from . import single_file
from .errors import PICKLES, ModelError
from .families import SUPPORTED as SUPPORTED_FILES
from .options import LoadOptions
from .protocol import ModelHandle

CHOICES = f"{SUPPORTED_FILES}, or {diffusers_folder.SUPPORTED}"


def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    options: LoadOptions | None = None,
    progress: Progress | None = None,
) -> ModelHandle:
    """Load a model, ready for unlearning. The file itself is never changed.

    Args:
        progress: ticks in bytes while the file is read once for its fingerprint.

    Raises:
        ModelError: a missing or truncated file, a pickle, not a supported diffusion model, or a
            model that does not support ``clip_skip``.
    """
    path, device, options = Path(path), torch.device(device), options or LoadOptions()
    check_model(path)
    progress = progress or Progress()
    if path.is_file():
        model = single_file.load_single_file(path, device, options, progress)
    else:
        model = diffusers_folder.load_folder(path, device, options, progress)
    if not options.clip_skip:
        return model
    from .clip_skip import with_clip_skip

    return with_clip_skip(model, options.clip_skip)


def import_libraries() -> None:
    """Import the libraries that ``load_model`` needs, which it otherwise does itself."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401


def check_model(path: Path) -> str:
    """The kind of a model as text. Reads no weights, so it is fast enough for a check before a job.

    Raises:
        ModelError: the header shows that ``load_model`` would refuse the file.
    """
    if not path.exists():
        raise ModelError(f"model: {str(path)!r} does not exist, choose {CHOICES}")
    if path.suffix in PICKLES:
        raise ModelError(
            f"model: {path.name!r} is a pickle, which is never loaded because it can run "
            f"code; convert it to safetensors, or choose {CHOICES}"
        )
    if path.is_file():
        return single_file.read_checkpoint(path)[1].label
    index = diffusers_folder.read_index(path)
    return diffusers_folder.recognise(path, index)
