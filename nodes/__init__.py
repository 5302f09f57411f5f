"""Registration of the nodes in ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .demo_model import DemoModel
from .diversify_prompts import DiversifyPrompts
from .evaluate_alignment import EvaluateAlignment
from .forget_concept import DefineForgetConcept
from .from_comfyui import FromComfyUI
from .host.folders import clean_model_folders
from .load_model import LoadModel
from .own_pictures import OwnPictures
from .page.routes import add_routes
from .quick_forget import QuickForget
from .restricted_gradient import RestrictedGradientUnlearn
from .save_checkpoint import SaveCheckpoint

NODES: tuple[type[io.ComfyNode], ...] = (
    LoadModel,
    DefineForgetConcept,
    DiversifyPrompts,
    RestrictedGradientUnlearn,
    EvaluateAlignment,
    SaveCheckpoint,
    OwnPictures,
    DemoModel,
    FromComfyUI,
    QuickForget,
)


class UnlearnExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> UnlearnExtension:
    clean_model_folders()
    add_routes(PromptServer.instance.routes)
    return UnlearnExtension()
