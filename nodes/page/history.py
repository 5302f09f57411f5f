"""What the pack's nodes showed in the last run of a graph, from ComfyUI's queue and history: for a
page that was opened or reloaded since, or that shows several graphs."""

from __future__ import annotations

import hashlib
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

    A node whose result came from the cache may have shown nothing in that run. Then the newest run
    of any graph counts in which a node with the same inputs was computed.

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
        signatures = Signatures(prompt)
        for node in _ours(prompt):
            if node in outputs:
                known.setdefault(signatures.of(node), outputs[node])
    signatures, ours = Signatures(newest), _ours(newest)
    found = {node: known.get(signatures.of(node)) for node in ours}
    outputs = {node: output for node, output in found.items() if output is not None}
    return {"prompt": {node: newest[node] for node in ours}, "outputs": outputs}


def workflow_of(prompt_id: str) -> str | None:
    """The id of the graph that a running or finished prompt came from; None where it has none."""
    queue = PromptServer.instance.prompt_queue
    running, _ = queue.get_current_queue_volatile()
    for _, identity, _, extra, *_ in running:
        if identity == prompt_id:
            return _workflow(extra)
    entry = queue.get_history(prompt_id, map_function=_essentials).get(prompt_id)
    return None if entry is None else entry[0]


def _essentials(entry: Mapping[str, Any]) -> tuple[str | None, Prompt, NodeOutputs]:
    """The id of the graph, the prompt, and what the nodes showed."""
    _, _, prompt, extra, *_ = entry["prompt"]
    return _workflow(extra), prompt, entry["outputs"]


def _workflow(extra: Mapping[str, Any]) -> str | None:
    return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")


def _ours(prompt: Prompt) -> list[str]:
    return [node for node, entry in prompt.items() if entry["class_type"].startswith(OURS)]


class Signatures:
    """Of the nodes of a prompt: equal for two that compute the same from the same inputs, whatever
    their ids."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.found: dict[str, str] = {}

    def of(self, node: str) -> str:
        if node not in self.found:  # each once: links may join two nodes twice, again and again
            entry = self.prompt[node]
            inputs = {name: self._resolved(value) for name, value in entry["inputs"].items()}
            content = json.dumps([entry["class_type"], inputs], sort_keys=True, default=str)
            self.found[node] = hashlib.sha256(content.encode()).hexdigest()
        return self.found[node]

    def _resolved(self, value: Any) -> object:
        linked = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
        return [self.of(value[0]), value[1]] if linked and value[0] in self.prompt else value
