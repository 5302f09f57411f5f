"""The reference part of each help page matches the schema."""

from __future__ import annotations

import pytest

from .help_pages import COMMAND, END, START, page_of, up_to_date
from .pack import NODES

WITH_SETTINGS = ("UnlearnDiversifyPrompts", "UnlearnRestrictedGradient", "UnlearnEvaluateAlignment")


@pytest.mark.parametrize("node_id", NODES)
def test_it_is_up_to_date(node_id: str) -> None:
    page = page_of(node_id).read_text(encoding="utf-8")
    assert page == up_to_date(node_id, page), f"run `{COMMAND}`"


@pytest.mark.parametrize("node_id", WITH_SETTINGS)
def test_nodes_with_settings_have_one(node_id: str) -> None:
    page = page_of(node_id).read_text(encoding="utf-8")
    assert page.count(START) == page.count(END) == 1


def test_a_stale_page_is_detected() -> None:
    page = page_of("UnlearnRestrictedGradient").read_text(encoding="utf-8")
    assert (
        up_to_date("UnlearnRestrictedGradient", page.replace("- **steps**:", "- **stride**:"))
        == page
    )
