"""Values of another type, which only another node can send: ComfyUI converts those in a prompt."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from .pack import NODES, defaults, run_node, schema_inputs

# isort: split
from comfy_api.latest import io

RULES = {
    io.Int.Input: "a whole number",
    io.Float.Input: "a number",
    io.String.Input: "a text",
    io.Combo.Input: "a text",
    io.Boolean.Input: "true or false",
}


@pytest.mark.parametrize("value", [{"a": 1}, [1], None, object()])
@pytest.mark.parametrize("node_id", NODES)
def test_a_value_of_another_type_is_refused_by_name(node_id: str, value: object) -> None:
    inputs = schema_inputs(node_id)
    links = [name for name, inp in inputs.items() if not isinstance(inp, io.WidgetInput)]
    for name in defaults(node_id):
        if value is None and inputs[name].optional:
            continue
        with pytest.raises(ValueError, match=f"^{name} must be {RULES[type(inputs[name])]}, got"):
            run_node(node_id, **{**dict.fromkeys(links, 3), name: value})


@pytest.mark.parametrize(
    ("node_id", "name"),
    [
        ("UnlearnLoadModel", "model"),
        ("UnlearnDemoModel", "model"),
        ("UnlearnSaveCheckpoint", "save_as"),
        ("UnlearnSaveCheckpoint", "lora_names"),
        ("UnlearnEvaluateAlignment", "scorer"),
        ("UnlearnEvaluateAlignment", "probes"),
        ("UnlearnOwnPictures", "folder"),
    ],
)
@pytest.mark.parametrize("value", [3, {"a": 1}, True])
def test_a_choice_of_another_type_is_refused_before_the_run(
    node_id: str, name: str, value: object
) -> None:
    """ComfyUI does not check the choices that a node checks itself."""
    answer = NODES[node_id].validate_inputs(**{**_arguments(node_id), name: value})
    assert isinstance(answer, str)
    assert answer.startswith(name)


def _arguments(node_id: str) -> dict[str, Any]:
    names = inspect.signature(NODES[node_id].validate_inputs).parameters
    return {name: value for name, value in defaults(node_id).items() if name in names}
