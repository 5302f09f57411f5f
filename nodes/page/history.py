"""What the pack's nodes showed in the last run of a graph, from ComfyUI's history: for a page that
was opened or reloaded since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server import PromptServer

RECENT = 100  # finished runs that are searched, the newest first
OURS = "Unlearn"  # how the types of the pack's nodes begin

Prompt = Mapping[str, Mapping[str, Any]]  # node id -> {"class_type": ..., "inputs": {...}}
NodeOutputs = Mapping[str, dict[str, Any]]


def last_run(workflow: str) -> dict[str, Any] | None:
    """The prompt of the newest finished run of a graph and what its nodes of the pack showed.

    A node whose result came from the cache showed nothing in that run. Then the newest run of any
    graph counts in which a node with the same inputs was computed.

    Returns:
        ``{"prompt": ..., "outputs": {node id: output}}``; None where the history has no such run.
    """
    history = PromptServer.instance.prompt_queue.get_history(
        max_items=RECENT, map_function=_essentials
    )
    runs = list(reversed(history.values()))
    newest = next((prompt for graph, prompt, _ in runs if graph == workflow), None)
    if newest is None:
        return None
    known: dict[str, dict[str, Any]] = {}  # by signature
    for _, prompt, outputs in runs:
        for node, output in outputs.items():
            if node in prompt:
                known.setdefault(_signature(prompt, node), output)
    ours = [node for node, entry in newest.items() if entry["class_type"].startswith(OURS)]
    found = {node: known.get(_signature(newest, node)) for node in ours}
    outputs = {node: output for node, output in found.items() if output is not None}
    return {"prompt": {node: newest[node] for node in ours}, "outputs": outputs}


def _essentials(entry: Mapping[str, Any]) -> tuple[str | None, Prompt, NodeOutputs]:
    """The id of the graph, the prompt, and what the nodes showed."""
    _, _, prompt, extra, *_ = entry["prompt"]
    workflow = (extra.get("extra_pnginfo") or {}).get("workflow") or {}
    return workflow.get("id"), prompt, entry["outputs"]


def _signature(prompt: Prompt, node: str) -> str:
    """Equal for two nodes that compute the same from the same inputs, whatever their ids."""

    def resolved(value: object) -> object:
        if isinstance(value, list) and len(value) == 2 and value[0] in prompt:
            return [described(value[0]), value[1]]
        return value

    def described(one: str) -> object:
        inputs = prompt[one]["inputs"]
        return [prompt[one]["class_type"], {name: resolved(v) for name, v in inputs.items()}]

    return json.dumps(described(node), sort_keys=True, default=str)
