"""The node pack's own parsers to fuzz: requests to its routes, and values of its nodes' inputs.

They need ComfyUI, whose ``nodes.py`` our ``nodes`` hides, and so a process of their own.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.tiny_models import write_stable_diffusion
from ..nodes.conftest import DIMENSIONS, QUICK, TEMPLATES, FakeServer
from ..nodes.pack import (
    NODES,
    ROUTES,
    WORKFLOW,
    defaults,
    node_result,
    pack_module,
    refusals,
    run_node,
    schema_inputs,
)
from .targets import Target

# isort: split
# `pack` makes ComfyUI's own modules importable.
import comfy.model_management
import execution
import folder_paths
import torch
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from comfy_api.latest import io
from server import PromptServer

KEY = "0123456789abcdef"  # of the run that the routes find
CONCEPT = {"concept": "ink", "kind": "style", "synonyms": "", "replacements": "noto, pixel"}
PROMPTS = {"templates": TEMPLATES, "dimensions": DIMENSIONS, "train_count": 3, "test_count": 2}
UNLEARN, LOAD = "UnlearnRestrictedGradient", "UnlearnLoadModel"


def _request_seeds() -> list[bytes]:
    table = {**defaults("UnlearnDiversifyPrompts"), **PROMPTS}
    bodies: dict[str, Any] = {
        "POST /unlearn/prompts": {"concept": CONCEPT, "prompts": table},
        "POST /unlearn/end": {"key": KEY, "step": 1},
        "POST /unlearn/restart": {"key": KEY},
        "POST /unlearn/cache/clear": {},
        "POST /unlearn/cache/limit": {"gigabytes": 7.5},
        "POST /unlearn/scorer": {},
        "POST /unlearn/scorer/cancel": {},
        "GET /unlearn/runs": {"workflow": WORKFLOW, "client": "page"},
        "GET /unlearn/last_run": {"workflow": WORKFLOW},
        "GET /unlearn/workflow": {"prompt": "a run"},
        "GET /unlearn/cache": {},
        "GET /unlearn/scorer": {},
    }
    # The two with the most to read get most of the inputs.
    names = [*bodies, *["POST /unlearn/prompts"] * 6, *["POST /unlearn/end"] * 2]
    return [json.dumps({"route": name, "content": bodies[name]}).encode() for name in names]


def routes(content: bytes, folder: Path) -> object:
    """``{"route": ..., "content": the body or the query}``; other inputs are bodies themselves."""
    _use_folders(folder)
    loop, app = _server()
    request: Any = _json_or_none(content)
    if not isinstance(request, dict) or not isinstance(request.get("route"), str):
        request = {"route": "POST /unlearn/end"}
        body = content
    else:
        body = json.dumps(request.get("content")).encode()
    method, _, path = request["route"].partition(" ")
    if request["route"] not in _known_routes():
        raise ValueError("another route")
    query = request.get("content")
    if method == "GET" and isinstance(query, Mapping):
        path += "?" + "&".join(f"{name}={value}" for name, value in query.items())
    return loop.run_until_complete(_answer(app, method, path.replace(" ", "+"), body))


async def _answer(app: web.Application, method: str, path: str, body: bytes) -> object:
    loop = asyncio.get_running_loop()
    # There is no connection to pause, so the limit is above every body.
    payload = StreamReader(BaseProtocol(loop), 2**30, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request = make_mocked_request(method, path, headers=headers, payload=payload, app=app)
    response = await app._handle(request)
    text = getattr(response, "text", "")
    if response.status != 200:
        assert response.status in (400, 404, 413), f"status {response.status}"
        assert "error" in json.loads(text)
        raise ValueError(text)
    return json.loads(text)


@functools.cache
def _known_routes() -> set[str]:
    return {f"{r.method} {r.path}" for r in ROUTES if isinstance(r, web.RouteDef)}


@functools.cache
def _server() -> tuple[asyncio.AbstractEventLoop, web.Application]:
    app = web.Application()
    app.add_routes(ROUTES)
    app.freeze()
    return asyncio.new_event_loop(), app


def _use_folders(folder: Path) -> None:
    """Let ComfyUI use folders below this one, and nothing else; and one run of a node, and its
    queue with a finished run."""
    places: dict[str, tuple[list[str], set[str]]] = {}
    for kind, endings in (("diffusers", {"folder"}), ("checkpoints", {".safetensors"}),
                          ("loras", {".safetensors"}), ("vae", {".safetensors"})):  # fmt: skip
        (folder / kind).mkdir()
        places[kind] = ([str(folder / kind)], endings)
    folder_paths.folder_names_and_paths = places
    folder_paths.filename_list_cache = {}
    (folder / "input").mkdir()
    for name in ("user", "temp", "output", "input"):
        setattr(folder_paths, f"{name}_directory", str(folder / name))
    folder_paths.models_dir = str(folder / "models")
    server = FakeServer()
    queue = execution.PromptQueue(server)
    extra = {"extra_pnginfo": {"workflow": {"id": WORKFLOW}}}
    graph = {"1": {"class_type": LOAD, "inputs": {"model": "demo"}}}
    queue.put((0, "a run", graph, extra, ["1"]))
    item = queue.get()
    assert item is not None
    queue.task_done(item[1], {"outputs": {"1": {"text": ["x"]}}, "meta": {}}, status=None)
    setattr(server, "prompt_queue", queue)  # noqa: B010
    setattr(PromptServer, "instance", server)  # noqa: B010
    runs = pack_module("nodes.page.runs")
    run = runs.LiveRun("7", WORKFLOW, "x", 3, ["ink"], 1, "page", key=KEY)
    run.steps, run.saved = [[1, 0.5, 0.5, 0.0, False]], [1]
    runs.RUNS.clear()
    runs.RUNS[run.place] = run
    comfy.model_management.interrupt_current_processing(False)


def _input_seeds() -> list[bytes]:
    _links()  # before the writes of an input are watched
    cheap = {
        "UnlearnDiversifyPrompts": PROMPTS,
        UNLEARN: QUICK,
        LOAD: {"model": "Digits (demo)"},
        "UnlearnDemoModel": {"model": "another"},  # loading it takes a second
    }
    # The nodes with the most inputs get most of the mutations.
    names = [*NODES, *["UnlearnDiversifyPrompts"] * 4, *[UNLEARN] * 4]
    inputs = {name: {**defaults(name), **cheap.get(name, {})} for name in names}
    return [json.dumps({"node": name, "inputs": inputs[name]}).encode() for name in names]


def node_inputs(content: bytes, folder: Path) -> object:
    """``{"node": ..., "inputs": {...}}``. The values are first in a prompt, as from the page, and
    then reach the node over links, where ComfyUI doesn't convert them."""
    request = _json_or_none(content)
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), dict):
        raise ValueError("not a prompt")
    node = request.get("node")
    if not isinstance(node, str) or node not in NODES:
        raise ValueError("another node")
    _use_folders(folder)
    known = schema_inputs(node)
    inputs = {name: value for name, value in request["inputs"].items() if name in known}
    # A list would be a link.
    queued = {k: {"__value__": v} if isinstance(v, list) else v for k, v in inputs.items()}
    refusals(node, **queued)
    if node == UNLEARN:
        inputs["keep_step"] = 10**9  # refused after all other values, before any training
    links = (inp for inp in known.values() if not isinstance(inp, io.WidgetInput))
    absent = {inp.id: 3 for inp in links if not inp.optional}
    return run_node(node, **{**absent, **_links().get(node, {}), **inputs})


@functools.cache
def _links() -> dict[str, dict[str, Any]]:
    """What is linked to a node, where it is cheap."""
    (concept,) = node_result("UnlearnForgetConcept", replacements="noto, pixel")
    pairs = node_result("UnlearnDiversifyPrompts", concept=concept, **PROMPTS)[0]
    with tempfile.TemporaryDirectory() as place:
        _use_folders(Path(place))
        folder = write_stable_diffusion(Path(place) / "tiny")
        model = pack_module("unlearn_core.models.load").load_model(folder)
        inputs = {"model": model, "prompts": pairs}
        unlearned = node_result(UNLEARN, **inputs, **{**QUICK, "steps": 1})[0]
    return {
        "UnlearnDiversifyPrompts": {"concept": concept},
        "UnlearnOwnPictures": {"images": torch.zeros(1, 8, 8, 3)},
        UNLEARN: inputs,
        "UnlearnSaveCheckpoint": {"unlearned": unlearned},
    }


def _json_or_none(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


NODE_TARGETS = (
    Target("routes", routes, 1.0, _request_seeds),
    Target("node_inputs", node_inputs, 1.0, _input_seeds),
)
