"""A plain value in the place of a link is refused by the name of the input."""

from __future__ import annotations

import pytest

from .pack import defaults, run_node

LINKS = {
    "UnlearnDiversifyPrompts": ("concept", "model", "also"),
    "UnlearnRestrictedGradient": ("model", "prompts"),
    "UnlearnEvaluateAlignment": ("unlearned",),
    "UnlearnSaveCheckpoint": ("unlearned",),
    "UnlearnFromComfyUI": ("model", "clip"),
    "UnlearnQuickForget": ("model", "clip"),
    "UnlearnOwnPictures": ("images",),
}


@pytest.mark.parametrize("value", [3, "a text", {"a": 1}, [["1", 0]], True])
@pytest.mark.parametrize("node", LINKS)
def test_a_value_in_the_place_of_a_link(node: str, value: object) -> None:
    first = LINKS[node][0]
    inputs = dict.fromkeys(LINKS[node], value)
    with pytest.raises(ValueError, match=f"^{first} must be linked from .*; link it and queue"):
        run_node(node, **{**defaults(node), **inputs})
