"""The graph that a node runs in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values_before(prompt: Mapping[str, Any] | None, node_id: str) -> set[str]:
    """The texts in the inputs of all nodes that a node depends on, such as names of loaded files.

    Args:
        prompt: the graph in the format of ComfyUI's API; None if there is none.
    """
    graph = prompt or {}
    values: set[str] = set()
    waiting, seen = _linked(graph, node_id), {node_id}
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        values.update(value for value in _inputs(graph, current) if isinstance(value, str))
        waiting += _linked(graph, current)
    return values


def _linked(graph: Mapping[str, Any], node_id: str) -> list[str]:
    """The nodes that the inputs of a node are linked to."""
    return [str(value[0]) for value in _inputs(graph, node_id) if isinstance(value, list)]


def _inputs(graph: Mapping[str, Any], node_id: str) -> list[Any]:
    return list(graph.get(node_id, {}).get("inputs", {}).values())
