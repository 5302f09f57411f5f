"""Demo Model: a bundled model in ComfyUI's own terms, for the stock nodes."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from comfy_api.latest import io

from .host.folders import PACK
from .inputs import sockets
from .inputs.values import checked
from .native.demo_networks import load_demo

FOLDERS = {
    "EmojiCanvas": PACK / "demo" / "models" / "emoji-canvas",
    "EmojiCanvas-Flow": PACK / "demo" / "models" / "emoji-canvas-flow",
}


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnDemoModel",
            display_name="Unlearn: Demo Model",
            category=sockets.CATEGORY,
            description="A tiny model that draws emoji, as ComfyUI's own MODEL, CLIP and VAE. It "
            "takes the place of Load Checkpoint in any graph, and needs no GPU.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(FOLDERS),
                    default=next(iter(FOLDERS)),
                    tooltip="The bundled model. Set Empty Latent Image to 128 × 128, and KSampler "
                    "to 20 steps and cfg 4. EmojiCanvas then draws pictures of 64 × 64 px, because "
                    "its VAE enlarges by 4 and not by 8.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="Denoiser, for KSampler."),
                io.Clip.Output(display_name="CLIP", tooltip="Text encoder, for CLIP Text Encode."),
                io.Vae.Output(display_name="VAE", tooltip="Autoencoder, for VAE Decode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        if model is None or model in list(FOLDERS):  # None: a linked value, checked by ``execute``
            return True
        return f"model must be one of {', '.join(FOLDERS)}, got {model!r}; choose one from the list"

    @classmethod
    @checked
    def execute(cls, model: str) -> io.NodeOutput:
        if (problem := cls.validate_inputs(model)) is not True:
            raise ValueError(problem)
        return io.NodeOutput(*load_demo(FOLDERS[model]))
