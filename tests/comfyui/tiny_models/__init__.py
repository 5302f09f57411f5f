"""A node pack for the live server: model files of random weights, and nodes to test with them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .loaders import TinyClipLoader, TinyUnetLoader
from .probes import RunOutOfMemory, State
from .write import WriteFiles


class TinyModels(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [WriteFiles, TinyUnetLoader, TinyClipLoader, RunOutOfMemory, State]


async def comfy_entrypoint() -> TinyModels:
    return TinyModels()
