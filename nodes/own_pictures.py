"""Own Pictures: a person's pictures, with captions, for the forget set or the retain set."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ..unlearn_core.dataset.own_pictures import OwnPictures as Pictures
from ..unlearn_core.dataset.own_pictures import read_folder, with_captions
from ..unlearn_core.foundation.pixels import as_bytes
from ..unlearn_core.foundation.progress import READING_PICTURES
from .host.folders import NO_FILE, picture_folders, pictures_path
from .host.progress import NodeProgress
from .inputs import sockets


class OwnPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnOwnPictures",
            display_name="Unlearn: Own Pictures",
            category=sockets.CATEGORY,
            description="Pictures of your own, with what each of them shows: of the concept, to "
            "forget it as you know it, or of anything that must stay as it is.",
            is_output_node=True,  # so that the captions can be read before any work starts
            inputs=[
                io.String.Input(
                    "captions",
                    multiline=True,
                    dynamic_prompts=False,
                    default="",
                    tooltip="What the pictures show: one line for all of them, or one line for "
                    "each; none by default. In a folder, a text file beside a picture and of the "
                    "same name counts more than one line for all; a line for each counts more than "
                    "the files, and a line such as 'cat.png: a red cat' most. To forget, a caption "
                    "must name the concept; to keep, it must not.",
                ),
                io.Combo.Input(
                    "folder",
                    options=[NO_FILE, *picture_folders()],
                    default=NO_FILE,
                    tooltip=f"A folder of pictures below ComfyUI's input folder, {NO_FILE!r} by "
                    "default. They keep their shapes: each is brought to the nearest of a few "
                    "sizes that the model can draw.",
                ),
                io.Boolean.Input(
                    "alone",
                    default=False,
                    label_on="only these",
                    label_off="and drawn ones",
                    tooltip="Whether the model learns from these pictures alone, off by default: "
                    "they join those that it draws itself, which are many more and more varied.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures from another node, such as Load Image, in place of a folder.",
                ),
            ],
            outputs=[
                sockets.Pictures.Output(
                    display_name="pictures",
                    tooltip="For forget_pictures or retain_pictures of Restricted Gradient "
                    "Unlearn.",
                ),
                io.String.Output(display_name="text", tooltip="All the captions, to read."),
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
        """A folder that has changed is another input, though its name is the same."""
        if folder in (None, NO_FILE):
            return None
        try:
            files = sorted(pictures_path(folder).iterdir())
            return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        except (ValueError, OSError):
            return None  # ``execute`` says what is wrong

    @classmethod
    def execute(
        cls, captions: str, folder: str, alone: bool, images: Tensor | None = None
    ) -> io.NodeOutput:
        if folder == NO_FILE:
            if images is None:
                raise ValueError("pictures: none given, link images or choose a folder")
            linked = tuple(as_bytes(images.movedim(-1, 1)[:, :3].float()))
            names = [f"{i + 1}" for i in range(len(linked))]
            pictures = Pictures(linked, with_captions(names, captions), alone)
        elif images is None:
            progress = NodeProgress({READING_PICTURES: 1})
            pictures = read_folder(pictures_path(folder), captions, alone, progress)
            names = [file.name for file in pictures.images if isinstance(file, Path)]
        else:
            raise ValueError(f"folder: choose {NO_FILE!r} where images are linked, or unlink them")
        rows = list(zip(names, pictures.captions, strict=True))
        text = "\n".join((f"{len(rows)} pictures", *(f"{name}: {said}" for name, said in rows)))
        return io.NodeOutput(pictures, text, ui={"text": [text], "unlearn_captions": rows})
