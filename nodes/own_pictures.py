"""Own Pictures: the user's pictures, with captions, for the forget set or the retain set."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ..unlearn_core.dataset.own_pictures import OwnPictures as Pictures
from ..unlearn_core.dataset.own_pictures import left_out, read_folder, with_captions
from ..unlearn_core.foundation.finite import kind_of
from ..unlearn_core.foundation.pixels import as_bytes
from ..unlearn_core.foundation.plurals import count_of
from ..unlearn_core.foundation.progress import READING_PICTURES
from .host.folders import NO_FILE, picture_folders, pictures_path
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.links import require_link
from .inputs.values import checked


class OwnPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnOwnPictures",
            display_name="Unlearn: Own Pictures",
            category=sockets.CATEGORY,
            description="Your own pictures with captions: pictures of the concept to forget, or "
            "of anything that must not change.",
            is_output_node=True,  # so that the captions can be read before any work starts
            inputs=[
                io.String.Input(
                    "captions",
                    multiline=True,
                    dynamic_prompts=False,
                    default="",
                    tooltip="Captions of the pictures: one line for all, or one line for each. In "
                    "a folder, a line such as 'cat.png: a red cat' is for that picture only. A "
                    "picture's caption is the first of these that exists: 1. the line with its "
                    "name; 2. its own line, if there is one line for each picture; 3. a text file "
                    "with the same name beside it; 4. the one line for all. Captions of pictures "
                    "to forget must name the concept. Captions of pictures to keep must not. For a "
                    "look, no caption may name it. Default: none.",
                ),
                io.Combo.Input(
                    "folder",
                    options=[NO_FILE, *picture_folders()],
                    default=NO_FILE,
                    tooltip="A folder of pictures in ComfyUI's input folder. Pictures need not be "
                    "square: each is resized to the nearest of a few formats that the model can "
                    f"draw. Default: {NO_FILE}.",
                ),
                io.Boolean.Input(
                    "alone",
                    default=False,
                    label_on="only these",
                    label_off="and drawn ones",
                    tooltip="On: the model learns only from these pictures. Off: they are added to "
                    "the pictures that the model draws itself, which are more numerous and more "
                    "varied. For a look, the model always learns only from these. Default: off.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures from another node, such as Load Image, instead of a folder.",
                ),
            ],
            outputs=[
                sockets.Pictures.Output(
                    display_name="pictures",
                    tooltip="For forget_pictures or retain_pictures of Restricted Gradient "
                    "Unlearn.",
                ),
                io.String.Output(display_name="text", tooltip="All the captions as text."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        try:
            if folder not in (None, NO_FILE):
                pictures_path(folder)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, **_: object) -> object:
        """A changed folder counts as a changed input although its name is the same."""
        if folder in (None, NO_FILE):
            return None
        try:
            files = sorted(pictures_path(folder).iterdir())
            return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        except (ValueError, OSError):
            return None  # ``execute`` reports the problem

    @classmethod
    @checked
    def execute(
        cls, captions: str, folder: str, alone: bool, images: Tensor | None = None
    ) -> io.NodeOutput:
        message = ""
        if folder == NO_FILE:
            if images is None:
                raise ValueError("images: there are none; link images or choose a folder")
            require_link("images", images, Tensor, "a node that loads or draws pictures")
            if kind := kind_of(images):
                raise ValueError(
                    f"images: a picture holds {kind}; repair the node that draws or decodes it"
                )
            linked = tuple(as_bytes(images.movedim(-1, 1)[:, :3].float()))
            names = [f"{i + 1}" for i in range(len(linked))]
            pictures = Pictures(linked, with_captions(names, captions), alone)
        elif images is None:
            progress = NodeProgress({READING_PICTURES: 1})
            pictures = read_folder(pictures_path(folder), captions, alone, progress)
            names = [file.name for file in pictures.images if isinstance(file, Path)]
            message = left_out(pictures_path(folder))
        else:
            raise ValueError(
                f"folder must be {NO_FILE!r} while images are linked, got {folder!r}; choose "
                f"{NO_FILE!r}, or unlink the images"
            )
        rows = list(zip(names, pictures.captions, strict=True))
        lines = (f"{name}: {caption}" for name, caption in rows)
        text = "\n".join(filter(None, (count_of(len(rows), "picture"), message, *lines)))
        return io.NodeOutput(pictures, text, ui={"text": [text], "unlearn_captions": rows})
