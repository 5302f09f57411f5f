"""Outputs of the pack's nodes in the last run of a graph, from ComfyUI's queue and history. A page
needs them if it was opened or reloaded after the run, or if it shows several graphs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from server import PromptServer

RECENT = 100  # finished runs that are searched, the newest first
PREFIX = "Unlearn"  # of the types of the pack's nodes

Prompt = Mapping[str, Mapping[str, Any]]  # node id -> {"class_type": ..., "inputs": {...}}
NodeOutputs = Mapping[str, dict[str, Any]]


def last_run(workflow: str) -> dict[str, Any] | None:
    """The prompt of the newest finished run of a graph, and the outputs of the pack's nodes in it.

    A node whose result came from the cache may have no output in that run. It gets the output of
    the newest run, of any graph, that computed a node with the same inputs.

    Returns:
        ``{"prompt": ..., "outputs": {node id: output}}``; None if the history has no such run.
    """
    history = PromptServer.instance.prompt_queue.get_history(
        max_items=RECENT, map_function=_essentials
    )
    runs = list(reversed(history.values()))
    newest = next((prompt for graph, prompt, _ in runs if graph == workflow), None)
    if newest is None:
        return None
    by_signature: dict[str, dict[str, Any]] = {}
    for _, prompt, outputs in runs:
        signatures = Signatures(prompt)
        for node in _pack_nodes(prompt):
            if node in outputs:
                by_signature.setdefault(signatures.of(node), outputs[node])
    signatures, nodes = Signatures(newest), _pack_nodes(newest)
    matches = {node: by_signature.get(signatures.of(node)) for node in nodes}
    outputs = {node: output for node, output in matches.items() if output is not None}
    return {"prompt": {node: newest[node] for node in nodes}, "outputs": outputs}


def workflow_of(prompt_id: str) -> str | None:
    """The id of the graph that a running or finished prompt came from; None if it has none."""
    queue = PromptServer.instance.prompt_queue
    running, _ = queue.get_current_queue_volatile()
    for _, identity, _, extra, *_ in running:
        if identity == prompt_id:
            return _workflow(extra)
    entry = queue.get_history(prompt_id, map_function=_essentials).get(prompt_id)
    return None if entry is None else entry[0]


def _essentials(entry: Mapping[str, Any]) -> tuple[str | None, Prompt, NodeOutputs]:
    """The id of the graph, the prompt, and the outputs of the nodes."""
    _, _, prompt, extra, *_ = entry["prompt"]
    return _workflow(extra), prompt, entry["outputs"]


def _workflow(extra: Mapping[str, Any]) -> str | None:
    part: object = extra
    for name in ("extra_pnginfo", "workflow", "id"):  # a script may send anything in their place
        part = part.get(name) if isinstance(part, Mapping) else None
    return part if isinstance(part, str) else None


def _pack_nodes(prompt: Prompt) -> list[str]:
    return [node for node, entry in prompt.items() if entry["class_type"].startswith(PREFIX)]


class Signatures:
    """Signatures of the nodes of a prompt: two nodes of the same type with the same inputs have
    the same one, whatever their ids."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.cache: dict[str, str] = {}

    def of(self, node: str) -> str:
        # Cached, because the number of paths through a graph with double links is exponential.
        if node not in self.cache:
            entry = self.prompt[node]
            inputs = {name: self._resolve(value) for name, value in entry["inputs"].items()}
            content = json.dumps([entry["class_type"], inputs], sort_keys=True, default=str)
            self.cache[node] = hashlib.sha256(content.encode()).hexdigest()
        return self.cache[node]

    def _resolve(self, value: Any) -> object:
        linked = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
        return [self.of(value[0]), value[1]] if linked and value[0] in self.prompt else value
