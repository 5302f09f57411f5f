"""The pack's workflow files, and changes of their widgets before a run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_cli.workflow_to_api import convert_ui_to_api
from live_server import PACK, Json

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))
DEMO = PACK / "workflows" / "remove a style (demo).json"
NOTES = ("Note", "MarkdownNote")
TITLE_HEIGHT = 30  # the page draws a node's title above its position
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

Overrides = Mapping[str, Mapping[str, Any]]  # node type -> widget -> value

# Every part of the demo's work in its smallest useful size: a few seconds in all.
QUICK: Overrides = {
    "UnlearnDiversifyPrompts": {"train_count": 4, "test_count": 4},
    "UnlearnRestrictedGradient": {"steps": 4, "preview_every": 2, "generation_steps": 4},
    "UnlearnEvaluateAlignment": {"pictures": 2, "generation_steps": 4},
    "UnlearnSaveCheckpoint": {"overwrite": True},  # the tests share one server
}


def read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def with_widgets(workflow: Json, overrides: Overrides, object_info: Mapping[str, Json]) -> Json:
    """A copy of a UI-format workflow with other widget values.

    Raises:
        ValueError: the node or widget does not exist: a renamed widget must not turn a quick run
            into a long one unnoticed.
    """
    changed = copy.deepcopy(workflow)
    for node_type, values in overrides.items():
        nodes = [node for node in changed["nodes"] if node["type"] == node_type]
        if not nodes:
            raise ValueError(f"the workflow has no node {node_type}")
        slots = list(widget_slots(object_info[node_type]))
        for name, value in values.items():
            if name not in slots:
                raise ValueError(f"{node_type} has no widget {name!r}, it has {slots}")
            for node in nodes:
                node["widgets_values"][slots.index(name)] = value
    return changed


def widget_slots(schema: Json) -> Iterator[str]:
    """The names for `widgets_values`, in the order in which the page saves the values."""
    for group in ("required", "optional"):
        for name in schema["input_order"].get(group, []):
            kind, *rest = schema["input"][group][name]
            options = rest[0] if rest else {}
            if not (isinstance(kind, list) or kind in WIDGET_TYPES) or options.get("forceInput"):
                continue
            yield name
            if options.get("control_after_generate"):
                yield f"{name}: control after generate"


def as_prompt(workflow: Json, object_info: dict[str, Json]) -> Json:
    """Convert a UI-format workflow to the API format of `/prompt`, by comfy-cli."""
    return convert_ui_to_api(workflow, object_info)


def node_of_type(workflow: Json, node_type: str) -> Json:
    return next(node for node in workflow["nodes"] if node["type"] == node_type)


def overlap(one: Json, other: Json) -> bool:
    """Whether two nodes, titles included, overlap."""
    (x1, y1), (w1, h1) = one["pos"], one["size"]
    (x2, y2), (w2, h2) = other["pos"], other["size"]
    beside = x1 + w1 <= x2 or x2 + w2 <= x1
    below = y1 + h1 <= y2 - TITLE_HEIGHT or y2 + h2 <= y1 - TITLE_HEIGHT
    return not (beside or below)
