"""The quick tier of the fuzz tests of routes and node inputs; ``python -m tests.fuzz --nodes`` is
the long one."""

from __future__ import annotations

import json
import sys

import pytest
from aiohttp import web

if sys.platform == "win32":
    pytest.skip("alarms and limits of POSIX", allow_module_level=True)

from ..fuzz.node_targets import NODE_TARGETS
from ..fuzz.runner import run
from ..fuzz.targets import Target
from .pack import NODES, ROUTES

# isort: split
# `pack` makes ComfyUI's own modules importable.
import folder_paths

QUICK_INPUTS = 400


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The download button starts no download; the input folder, which the targets replace, is
    restored after the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(folder_paths, "input_directory", folder_paths.input_directory)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", NODE_TARGETS, ids=lambda target: target.name)
def test_a_request_or_a_value_is_accepted_or_refused(target: Target) -> None:
    figures = run(target, seed=1, first=0, count=QUICK_INPUTS)
    assert figures.crashes == []
    assert figures.outside == []
    assert figures.accepted >= 1
    assert figures.megabytes < 500


def test_every_route_and_every_node_has_an_example() -> None:
    routes, inputs = (map(json.loads, target.examples) for target in NODE_TARGETS)
    paths = {f"{r.method} {r.path}" for r in ROUTES if isinstance(r, web.RouteDef)}
    assert {example["route"] for example in routes} == paths
    assert {example["node"] for example in inputs} == set(NODES)
