"""Prompts from strangers: every length and number has a limit, checked before any work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unlearn_core.foundation.checks import LONGEST_TEXT, LONGEST_WORD
from unlearn_core.prompts.concept import MOST_SYNONYMS, ForgetConcept
from unlearn_core.prompts.diversify import LARGEST_COUNT, diversify
from unlearn_core.prompts.files import MOST_PAIRS, MOST_VALUES, read_prompt_file, read_prompts
from unlearn_core.prompts.settings import PromptSettings

INK = ForgetConcept("ink", replacements=("noto",))
LONG = "a" * 6_000_000


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Each refusal takes little time."""
    started = time.process_time()
    yield
    assert time.process_time() - started < 5


def prompt_file() -> dict[str, Any]:
    pair = {"forget": "an ink cat", "retain": "a noto cat", "replacement": "noto", "values": {}}
    concept = {"name": "ink", "kind": "style", "synonyms": [], "replacements": ["noto"]}
    return {
        "format": "unlearn prompts 1", "concept": concept, "dimensions": {"object": ["cat"]},
        "train": [pair], "test": [dict(pair)],
    }  # fmt: skip


def set_value(content: dict[str, Any]) -> None:
    content["train"][0]["values"] = {"object": LONG}


def set_many_values(content: dict[str, Any]) -> None:
    content["train"][0]["values"] = {f"v{i}": str(i) for i in range(80_000)}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a value": (set_value, f"values.object: .* {LONGEST_WORD} characters or fewer, got 6000000"),
    "values": (set_many_values, f"train.0..values must have {MOST_VALUES} values or fewer"),
    "a prompt": (lambda c: c["test"][0].update(forget="ink " + LONG), f"forget: .* {LONGEST_TEXT}"),
    "a name": (lambda c: c["concept"].update(name=LONG), "concept.name: .* 1000 characters"),
    "a synonym": (lambda c: c["concept"].update(synonyms=[LONG]), "synonyms: .* 1000 characters"),
    "synonyms": (
        lambda c: c["concept"].update(synonyms=[f"s{i}" for i in range(80_000)]),
        f"synonyms must be {MOST_SYNONYMS} words or fewer, got 80000",
    ),
    "a dimension": (lambda c: c["dimensions"].update(object=[LONG]), "dimensions.object: .* 1000"),
    "pairs": (
        lambda c: c.update(train=c["train"] * (MOST_PAIRS + 1)),
        f"'train' must have {MOST_PAIRS} pairs or fewer",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_prompt_file_beyond_the_limits(tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    content = prompt_file()
    read_prompts(json.dumps(content))
    change(content)
    text = json.dumps(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(text)
    file = tmp_path / "prompts.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_prompt_file(file, INK)


def test_many_values_take_linear_time() -> None:
    """80,000 values took 72 s."""
    values = tuple(f"thing {i}" for i in range(80_000))
    pairs = diversify(
        INK, ["a {object} in {concept} style"], {"object": values}, train_count=4, test_count=4
    )
    assert len(pairs.train) == len(pairs.test) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_count": 10**9}, "train_count must be 1000000 or less"),
        ({"test_count": LARGEST_COUNT + 1}, f"test_count must be {LARGEST_COUNT} or less"),
        ({"templates": ("a {concept} " + LONG,)}, "templates: .* 10000 characters or fewer"),
        ({"dimensions": {"object": (LONG, "cat")}}, "dimensions.object: .* 1000 characters"),
        ({"dimensions": {"object": ("cat",) * 100_001}}, "must have 100000 texts or fewer"),
    ],
)
def test_settings_beyond_the_limits(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts(**changes)


def prompts(**changes: Any) -> object:
    settings = PromptSettings(**changes)
    counts = {"train_count": settings.train_count, "test_count": settings.test_count}
    return diversify(INK, *settings.grid(INK), **counts)
