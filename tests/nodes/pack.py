"""The pack and its nodes, loaded and run in ComfyUI's way.

ComfyUI's folder is first on ``sys.path``; otherwise its ``import nodes`` would find ours.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
WORKFLOW = "a-graph"  # the id of the nodes' graph
NAME = "unlearn_pack"  # an arbitrary name, because the pack's own imports are relative

if not (COMFYUI / "main.py").is_file():
    raise pytest.UsageError(
        f"no ComfyUI in {COMFYUI}: run `python run.py test`, or set COMFYUI_PATH"
    )
sys.path.insert(0, str(COMFYUI))

from comfy.cli_args import args  # noqa: E402

args.cpu = True  # before the device is chosen

# As in ComfyUI's main.py: after the import of its `nodes`, `utils` would be another module.
importlib.import_module("utils.install_util")

import execution  # noqa: E402
import torch  # noqa: E402
from aiohttp import web  # noqa: E402
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402
from comfy_api.latest import io  # noqa: E402
from server import PromptServer  # noqa: E402

import nodes as comfyui_nodes  # noqa: E402

ROUTES = web.RouteTableDef()  # the routes added by the pack


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _nodes() -> dict[str, type[io.ComfyNode]]:
    # The part of ComfyUI's server that a pack needs on loading.
    setattr(PromptServer, "instance", SimpleNamespace(routes=ROUTES))  # noqa: B010
    extension = asyncio.run(PACK.comfy_entrypoint())
    listed = asyncio.run(extension.get_node_list())
    return {node.define_schema().node_id: node for node in listed}


OF_COMFYUI = frozenset(sys.modules)  # modules imported before the pack
PACK = _load()
WITH_PACK = frozenset(sys.modules)
NODES = _nodes()
WITH_SCHEMAS = frozenset(sys.modules)
getattr(comfyui_nodes, "NODE_CLASS_MAPPINGS").update(NODES)  # noqa: B009 - pyright sees our nodes


def pack_module(name: str) -> ModuleType:
    """A module of the pack; its classes are not those of ``import unlearn_core``."""
    return importlib.import_module(f"{NAME}.{name}")


def schema_inputs(node_id: str) -> dict[str, Any]:
    """The node's inputs by name."""
    return {inp.id: inp for inp in NODES[node_id].define_schema().inputs}


def defaults(node_id: str) -> dict[str, Any]:
    """The widget values of a fresh node."""
    inputs = schema_inputs(node_id).items()
    return {name: inp.default for name, inp in inputs if isinstance(inp, io.WidgetInput)}


def run_node(node_id: str, **inputs: Any) -> io.NodeOutput:
    """Run a node as ComfyUI does, on a locked clone in inference mode. Other inputs have their
    defaults."""
    hidden = {io.Hidden.unique_id: "7", io.Hidden.extra_pnginfo: {"workflow": {"id": WORKFLOW}}}
    # ComfyUI 0.3.75 expects the values themselves, newer versions expect them under a key.
    data: Any = {**hidden, "hidden_inputs": hidden}
    clone = NODES[node_id].PREPARE_CLASS_CLONE(data)
    with torch.inference_mode():
        return clone.EXECUTE_NORMALIZED(**{**defaults(node_id), **inputs})


def shown_by(output: io.NodeOutput) -> dict[str, Any]:
    """The node's output for the page."""
    assert isinstance(output.ui, dict)
    return output.ui


def node_result(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    result = run_node(node_id, **inputs).result
    assert result is not None
    return result


def refusals(node_id: str, **widgets: Any) -> list[str]:
    """ComfyUI's own errors for a queued node with these widget values, before any work."""
    links = {
        name: ["source", 0]
        for name, inp in schema_inputs(node_id).items()
        if not isinstance(inp, io.WidgetInput) and not inp.optional
    }
    source = type("Source", (), {"RETURN_TYPES": ("*",), "INPUT_TYPES": classmethod(lambda _: {})})
    getattr(comfyui_nodes, "NODE_CLASS_MAPPINGS")["Source"] = source  # noqa: B009
    prompt = {
        "source": {"class_type": "Source", "inputs": {}},
        "node": {"class_type": node_id, "inputs": {**links, **defaults(node_id), **widgets}},
    }
    _, errors, _ = asyncio.run(execution.validate_inputs("prompt", prompt, "node", {}))
    return [f"{error['message']}: {error['details']}" for error in errors]


def call(method: str, path: str, content: object = None) -> tuple[int, Any]:
    """The answer of one of the pack's routes, through a real aiohttp server."""

    async def request() -> tuple[int, Any]:
        app = web.Application()
        app.add_routes(ROUTES)
        async with TestClient(TestServer(app)) as client:
            answer = await client.request(method, path, json=content)
            return answer.status, await answer.json()

    return asyncio.run(request())
