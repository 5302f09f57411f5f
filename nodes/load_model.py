"""Load Model: the diffusion model to unlearn from."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

import torch
from comfy_api.latest import io

from ..unlearn_core.foundation.fields import settings_of
from ..unlearn_core.foundation.progress import LOADING
from ..unlearn_core.models.families import FAMILIES
from ..unlearn_core.models.folder import SETTINGS
from ..unlearn_core.models.load import check_model, load_model
from ..unlearn_core.models.options import LARGEST_IMAGE, LoadOptions
from ..unlearn_core.models.protocol import ModelHandle
from .host.folders import BUNDLED, OWN_VAE, model_names, model_path, vae_names, vae_path
from .host.imports import await_libraries
from .host.memory import load, make_room_for
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.from_settings import input_from
from .inputs.values import checked

LABELS = {family.name: family.label for family in FAMILIES}


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnLoadModel",
            display_name="Unlearn: Load Model",
            category=sockets.CATEGORY,
            description="Opens the diffusion model that should forget something. The file itself "
            "is never changed.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=model_names(),
                    default=next(iter(BUNDLED)),
                    tooltip="The model that should forget. EmojiCanvas, the default, comes with "
                    "this pack. It is tiny and draws emoji in five styles: with it you can try "
                    "everything in minutes. Your own models are listed from ComfyUI's "
                    "models/checkpoints (Stable Diffusion 1.x, 2.x and XL in one file) and "
                    "models/diffusers (folders). They need a GPU and more time. Only safetensors "
                    "files are opened, never pickles (.ckpt).",
                ),
                io.Combo.Input(
                    "vae",
                    options=vae_names(),
                    default=OWN_VAE,
                    tooltip="The VAE, which turns latents into pictures. If your checkpoint has no "
                    "VAE, choose a file from models/vae. Default: the model's own.",
                ),
                *map(sockets.advanced, _advanced_inputs()),
            ],
            outputs=[
                sockets.Model.Output(display_name="model", tooltip="The loaded model."),
                io.String.Output(
                    display_name="info", tooltip="Name, type and size of the loaded model."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        """Check the model before any node runs. ``execute`` checks the other inputs, because this
        node runs first."""
        if model is None:  # a linked value, known only when the node runs
            return True
        try:
            check_model(model_path(model))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None, vae: str | None = None, **_: object) -> object:
        """A changed file counts as a changed input although its name is the same: Save Checkpoint
        can overwrite a model."""
        paths = [model_path(model) if model else None, vae_path(vae) if vae else None]
        files = [
            file
            for path in paths
            if path is not None
            for file in (_model_files(path) if path.is_dir() else [path])
        ]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    @classmethod
    @checked
    def execute(
        cls,
        model: str,
        vae: str,
        image_size: int,
        prediction: str,
        precision: str,
        clip_skip: int = LoadOptions.clip_skip,
    ) -> io.NodeOutput:
        options = LoadOptions(vae_path(vae), image_size, prediction, precision, clip_skip)
        path, progress = model_path(model), NodeProgress({LOADING: 1})
        await_libraries(progress)
        # ComfyUI runs nodes in inference mode; weights loaded in it cannot be trained.
        with torch.inference_mode(False):
            device = make_room_for(path)
            handle = load_model(path, device, options, progress)
        load(handle)
        info = describe(handle)
        return io.NodeOutput(handle, info, ui={"text": [info]})


def _model_files(folder: Path) -> list[Path]:
    """The files of a diffusers folder that determine the model: settings and weights."""
    patterns = ("*.json", "*/*.safetensors", *(f"*/{pattern}" for pattern in SETTINGS))
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def describe(model: ModelHandle) -> str:
    """Name, family, picture size, size of the denoiser and device, one line each."""
    info = model.info
    parameters = sum(parameter.numel() for _, parameter in model.named_parameters())
    return "\n".join(
        (
            info.name,
            f"{LABELS.get(info.family, info.family)}, predicts {info.prediction}, "
            f"{info.image_size} × {info.image_size} px",
            f"{parameters / 1e6:.1f} million trainable parameters, on {model.device}",
            f"fingerprint {info.fingerprint[:12]}",
            *([f"clip skip {info.clip_skip}"] if info.clip_skip else []),
        )
    )


def _advanced_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "image_size",
            default=LoadOptions.image_size,
            min=0,
            max=LARGEST_IMAGE,
            step=64,
            tooltip=f"{settings_of(LoadOptions)['image_size'].help} Default: 0.",
        ),
        input_from(LoadOptions, "prediction"),
        input_from(LoadOptions, "precision"),
        input_from(LoadOptions, "clip_skip", optional=True),  # older workflows have no such input
    ]
