"""The schemas of the nodes."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from demo import world

from .pack import NODES, PACK, ROOT, defaults, pack_module, schema_inputs

IDS = (
    "UnlearnLoadModel",
    "UnlearnForgetConcept",
    "UnlearnDiversifyPrompts",
    "UnlearnRestrictedGradient",
    "UnlearnEvaluateAlignment",
    "UnlearnSaveCheckpoint",
    "UnlearnOwnPictures",
    "UnlearnDemoModel",
    "UnlearnFromComfyUI",
    "UnlearnQuickForget",
)
every_node = pytest.mark.parametrize("node_id", IDS)


def test_the_nodes_are_registered() -> None:
    assert tuple(NODES) == IDS
    assert not hasattr(PACK, "NODE_CLASS_MAPPINGS")  # it would hide the entry point


@every_node
def test_every_input_and_output_is_explained(node_id: str) -> None:
    schema = NODES[node_id].define_schema()
    assert schema.category == "unlearn"
    assert schema.display_name.startswith("Unlearn: ")
    for inp in schema_inputs(node_id).values():
        assert len(inp.tooltip) > 20, inp.id
    for output in schema.outputs:
        assert output.tooltip, output.display_name
        assert output.display_name


@every_node
def test_every_widget_has_a_default_that_the_core_accepts(node_id: str) -> None:
    for name, value in defaults(node_id).items():
        assert value is not None, name


@every_node
def test_a_default_in_a_tooltip_is_correct(node_id: str) -> None:
    for name, inp in schema_inputs(node_id).items():
        default = re.search(r"Default: (.+)\.$", inp.tooltip)
        if default and isinstance(inp.default, int | float) and not isinstance(inp.default, bool):
            assert float(default[1]) == inp.default, name


@every_node
def test_it_has_a_help_page(node_id: str) -> None:
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    for name in schema_inputs(node_id):
        assert f"**{name}**" in page, name


@every_node
def test_the_id_is_literal(node_id: str) -> None:
    """The Manager's scanner reads it from the source."""
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "nodes").glob("*.py")]
    assert sum(f'node_id="{node_id}"' in source for source in sources) == 1


def of_settings(settings: Any) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings)}


def test_unlearn_defaults_are_the_core_s() -> None:
    core = pack_module("unlearn_core.unlearning.settings")
    values = defaults("UnlearnRestrictedGradient")
    drawing = pack_module("unlearn_core.dataset.settings").GenerationSettings()
    assert values.pop("generation_steps") == drawing.steps
    assert values.pop("guidance_scale") == drawing.guidance_scale
    values.pop("preview_every")
    assert values.pop("strength") == 1
    assert values.pop("keep_step") == 0
    assert values.pop("recipe") == pack_module("unlearn_core.unlearning.recipes").OURS
    assert values.pop("generation_seed") == drawing.seed
    assert values == of_settings(core.UnlearnSettings())


def test_evaluation_defaults_are_the_core_s() -> None:
    settings = pack_module("unlearn_core.judging.settings").EvaluationSettings()
    drawing = settings.generation
    assert defaults("UnlearnEvaluateAlignment") == {
        "pictures": settings.pictures,
        "scorer": pack_module("nodes.host.folders").OWN_SCORER,
        "probes": settings.probes,
        "report_name": "unlearn_report",
        "seed": drawing.seed,
        "generation_steps": drawing.steps,
        "guidance_scale": drawing.guidance_scale,
        "batch_size": drawing.batch_size,
    }


def test_prompt_defaults_use_the_demo_model_s_vocabulary() -> None:
    values = defaults("UnlearnDiversifyPrompts")
    parse = pack_module("unlearn_core.prompts.diversify").parse_dimensions
    dimensions = parse(values["dimensions"])
    assert dimensions == {"object": world.OBJECTS, "background": world.BACKGROUNDS}
    wordings = [t.replace("{concept}", "{style}") for t in values["templates"].splitlines()]
    assert set(wordings) <= {*world.FULL_CAPTIONS, *world.NO_BACKGROUND_CAPTIONS}
    concept = defaults("UnlearnForgetConcept")
    words = [concept["concept"], *concept["replacements"].split(", ")]
    assert sorted(words) == sorted(world.STYLES)


def test_every_field_of_the_settings_is_an_input() -> None:
    """Name, default, choices, section and text come only from the field: a new setting appears on
    the node, checked and explained, without further code."""
    owner = pack_module("unlearn_core.unlearning.settings").UnlearnSettings
    settings = pack_module("unlearn_core.foundation.fields").settings_of(owner)
    assert list(settings) == [f.name for f in fields(owner)]
    inputs = schema_inputs("UnlearnRestrictedGradient")
    for name, setting in settings.items():
        inp = inputs[name]
        assert inp.tooltip.startswith(setting.help)
        assert inp.tooltip.endswith(f" Default: {format_value(setting.default)}.")
        assert inp.as_dict().get("advanced", False) == setting.advanced
        options = getattr(setting.kind, "options", ())
        assert tuple(getattr(inp, "options", None) or ()) == options
        assert all(f"'{option}'" in setting.help for option in options), "explain each choice"
        for end in ("min", "max"):
            if hasattr(inp, end):  # the core accepts both ends of the node's range
                owner(**{name: getattr(inp, end)})


def format_value(value: object) -> str:
    return pack_module("nodes.inputs.from_settings").format_value(value)


@every_node
def test_advanced_inputs_are_below_the_others(node_id: str) -> None:
    widgets = [inp.as_dict() for inp in schema_inputs(node_id).values() if hasattr(inp, "default")]
    advanced = [bool(one.get("advanced")) for one in widgets]
    assert advanced == sorted(advanced)


def test_at_most_six_inputs_are_not_advanced() -> None:
    inputs = schema_inputs("UnlearnRestrictedGradient")
    common = {name for name, i in inputs.items() if hasattr(i, "default") and not is_advanced(i)}
    assert common == {"recipe", "effort", "retain_weight", "harden", "seed", "strength"}


def is_advanced(inp: Any) -> bool:
    return bool(inp.as_dict().get("advanced"))
