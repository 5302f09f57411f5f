"""Every workflow file: known nodes, no overlaps, left-to-right links, a note and a thumbnail."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from live_server import LiveServer
from workflow_files import DEMO, NOTES, WORKFLOWS, overlap, read, widget_slots

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def test_the_demo_workflow_exists() -> None:
    assert DEMO in WORKFLOWS


@every_workflow
def test_each_opened_template_is_a_graph_of_its_own(path: Path) -> None:
    """Runs belong to a graph by its id; the page gives one to a file that has none."""
    assert "id" not in read(path)


@every_workflow
def test_every_node_type_is_known(path: Path, server: LiveServer) -> None:
    types = {node["type"] for node in read(path)["nodes"]}
    assert types - set(server.object_info()) <= set(NOTES)


@every_workflow
def test_values_are_in_the_current_order(path: Path, server: LiveServer) -> None:
    """``comfy run`` reads them only by position."""
    schemas = server.object_info()
    for node in read(path)["nodes"]:
        if node["type"].startswith("Unlearn"):
            names = list(widget_slots(schemas[node["type"]]))
            assert node["properties"]["unlearn inputs"] == names
            assert len(node["widgets_values"]) == len(names)


@every_workflow
def test_no_two_nodes_overlap(path: Path) -> None:
    for one, other in combinations(read(path)["nodes"], 2):
        assert not overlap(one, other), f"{one['type']} overlaps {other['type']}"


@every_workflow
def test_links_run_left_to_right(path: Path) -> None:
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, _, target, *_ in workflow["links"]:
        one, other = nodes[source], nodes[target]
        right_edge = one["pos"][0] + one["size"][0]
        assert right_edge <= other["pos"][0], f"{one['type']} is right of {other['type']}"


@every_workflow
def test_has_a_note_and_a_thumbnail(path: Path) -> None:
    notes = [node for node in read(path)["nodes"] if node["type"] in NOTES]
    assert notes
    assert all(node["widgets_values"][0].strip() for node in notes)
    # In the dark look of Nodes 2.0 nobody can read code on a note's brown.
    assert not any("`" in node["widgets_values"][0] for node in notes)
    assert path.with_suffix(".jpg").read_bytes().startswith(b"\xff\xd8")
