"""Nodes that inspect a MODEL's network or make it fail."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import gc
import json
import time
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor, nn


class State(io.ComfyNode):
    """The state after a run, as JSON: modules with a replaced ``forward`` or hooks, parameters that
    require gradients, ComfyUI's training mode, and the size of all tensors in the process."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TinyState", inputs=[io.Model.Input("model")], is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, model: ModelPatcher) -> float:
        return time.monotonic()

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        comfy.model_management.unload_all_models()  # so that no weights are patched
        network: nn.Module = model.model
        state = {
            "hooked": [
                name
                for name, part in network.named_modules()
                if "forward" in vars(part) or part._forward_pre_hooks or part._forward_hooks
            ],
            "training": getattr(comfy.model_management, "in_training", False),
            "trainable": [name for name, p in network.named_parameters() if p.requires_grad],
            "bytes": _bytes_of_tensors(),
        }
        return io.NodeOutput(ui={"text": [json.dumps(state)]})


def _bytes_of_tensors() -> int:
    gc.collect()
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        if isinstance(thing, Tensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class RunOutOfMemory(io.ComfyNode):
    """The MODEL, whose last layer runs out of memory once, in a prediction with gradients."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyRunOutOfMemory",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        network: Any = model.model.diffusion_model
        last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]

        def fail(*_: object) -> None:
            if torch.is_grad_enabled():
                hook.remove()
                raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

        hook = last.register_forward_pre_hook(fail)
        return io.NodeOutput(model)
