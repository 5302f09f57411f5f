"""The bundled workflows match the nodes' schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .pack import NODES, ROOT, defaults, schema_inputs

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
DEMO = ROOT / "workflows" / "remove a style (demo).json"


def read(file: Any) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_demo_uses_every_node_at_its_defaults() -> None:
    """Except Own Pictures, because the demo has no pictures for it, and the nodes for models
    of ComfyUI."""
    nodes = {node["type"]: node for node in read(DEMO)["nodes"]}
    used = set(NODES) - {
        "UnlearnOwnPictures",
        "UnlearnDemoModel",
        "UnlearnFromComfyUI",
        "UnlearnQuickForget",
    }
    assert used <= set(nodes)
    for node_id in used:
        assert nodes[node_id]["widgets_values"] == list(defaults(node_id).values()), node_id


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_links_join_sockets_of_one_type(file: Any) -> None:
    workflow = read(file)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link_id, source, output, target, slot, kind in workflow["links"]:
        out, inp = nodes[source]["outputs"][output], nodes[target]["inputs"][slot]
        assert link_id in out["links"]
        assert inp["link"] == link_id
        assert out["type"] == inp["type"] == kind
        if nodes[source]["type"] in NODES:
            schema = NODES[nodes[source]["type"]].define_schema()
            assert str(schema.outputs[output].io_type) == kind
        if nodes[target]["type"] in NODES:
            schema_input = schema_inputs(nodes[target]["type"])[inp["name"]]
            assert str(schema_input.get_io_type()) == kind


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_it_contains_no_absolute_path(file: Any) -> None:
    text = file.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert ":\\" not in text
